package actors

import (
	"sync"
	"sync/atomic"
)

// incarnationTable finds the live actors of this process that this package spawned.
//
// It is a map, and before it a table of the actors that were found last. The table needs no lock
// and no allocation for a key: every message looks its actor up.
type incarnationTable struct {
	all   sync.Map // id -> *incarnation
	found [foundLen]atomic.Pointer[incarnation]
}

const foundLen = 512 // a power of two

// slot is where the actor with an id is in found. Ids that differ do so at their ends, mostly.
func (d *incarnationTable) slot(id string) *atomic.Pointer[incarnation] {
	h := uint32(len(id))
	for _, c := range []byte(id[max(0, len(id)-4):]) {
		h = h*37 + uint32(c)
	}
	return &d.found[h%foundLen]
}

// find returns the actor with an id; nil: there is none.
func (d *incarnationTable) find(id string) *incarnation {
	at := d.slot(id)
	if inc := at.Load(); inc != nil && inc.id == id && !inc.stale.Load() {
		return inc
	}
	v, ok := d.all.Load(id)
	if !ok {
		return nil
	}
	inc := v.(*incarnation)
	at.Store(inc)
	// The end of the actor sets stale, then clears the slot: one of the two sees the other.
	if inc.stale.Load() {
		at.CompareAndSwap(inc, nil)
	}
	return inc
}

func (d *incarnationTable) add(inc *incarnation) { d.all.Store(inc.id, inc) }

// remove takes inc out, unless a later incarnation has its id. inc.stale is set.
func (d *incarnationTable) remove(inc *incarnation) {
	d.all.CompareAndDelete(inc.id, inc)
	d.slot(inc.id).CompareAndSwap(inc, nil)
}

// each calls f for every actor.
func (d *incarnationTable) each(f func(inc *incarnation)) {
	d.all.Range(func(_, c any) bool { f(c.(*incarnation)); return true })
}
