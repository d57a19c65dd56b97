package actors

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// directory finds the live actors of this process that this package spawned.
//
// Behind it is a map; before it a table of what was found last, without keys to
// box and without a lock, because every message looks its actor up.
type directory struct {
	seed  maphash.Seed
	all   sync.Map // id -> *cell
	found [foundLen]atomic.Pointer[cell]
}

const foundLen = 512 // a power of two

func (d *directory) init() { d.seed = maphash.MakeSeed() }

// find returns the actor with an id; nil: there is none.
func (d *directory) find(id string) *cell {
	at := &d.found[maphash.String(d.seed, id)&(foundLen-1)]
	if c := at.Load(); c != nil && c.id == id && !c.over.Load() {
		return c
	}
	v, ok := d.all.Load(id)
	if !ok {
		return nil
	}
	c := v.(*cell)
	at.Store(c)
	// Who ends the actor sets over, then forgets it here: one of us sees the other.
	if c.over.Load() {
		at.CompareAndSwap(c, nil)
	}
	return c
}

func (d *directory) add(c *cell) { d.all.Store(c.id, c) }

// remove takes c out, unless a later incarnation has its id. c.over is set.
func (d *directory) remove(c *cell) {
	d.all.CompareAndDelete(c.id, c)
	d.found[maphash.String(d.seed, c.id)&(foundLen-1)].CompareAndSwap(c, nil)
}

// each calls f for every actor.
func (d *directory) each(f func(c *cell)) {
	d.all.Range(func(_, c any) bool { f(c.(*cell)); return true })
}
