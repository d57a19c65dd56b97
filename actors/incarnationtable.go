package actors

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// incarnationTable finds the live actors of this process that this package spawned.
//
// It is a map, and before it a table of the actors that were found last. The table needs no lock
// and no allocation for a key: every message looks its actor up.
type incarnationTable struct {
	seed  maphash.Seed
	all   sync.Map // id -> *incarnation
	found [foundLen]atomic.Pointer[incarnation]
}

const foundLen = 512 // a power of two

func (d *incarnationTable) init() { d.seed = maphash.MakeSeed() }

// find returns the actor with an id; nil: there is none.
func (d *incarnationTable) find(id string) *incarnation {
	at := &d.found[maphash.String(d.seed, id)&(foundLen-1)]
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
	d.found[maphash.String(d.seed, inc.id)&(foundLen-1)].CompareAndSwap(inc, nil)
}

// each calls f for every actor.
func (d *incarnationTable) each(f func(inc *incarnation)) {
	d.all.Range(func(_, c any) bool { f(c.(*incarnation)); return true })
}
