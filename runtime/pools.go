package coppice

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// pools are the running pools, and the listener process.
type pools struct {
	generations *generations

	mu    sync.Mutex
	all   []*poolDriver // in the order of their start
	added chan struct{} // closed when the next pool starts; nil when nothing waits for it
}

// next returns a channel that is closed when another pool starts.
func (cs *pools) next() <-chan struct{} {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if cs.added == nil {
		cs.added = make(chan struct{})
	}
	return cs.added
}

// add registers a pool that starts. The pool starts with the current generation: a pool that a
// running reload did not list starts with the result of that reload.
func (cs *pools) add(c *poolDriver) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if c.children.inherited.isNew(c.path) { // only this program has it
		c.begin(cs.generations.newest())
	} else {
		c.begin(cs.generations.now())
		c.recall(c.children.inherited.slots(c.path))
	}
	cs.all = append(cs.all, c)
	if cs.added != nil {
		close(cs.added)
		cs.added = nil
	}
}

// remove removes a pool that has ended.
func (cs *pools) remove(c *poolDriver) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.all = slices.DeleteFunc(cs.all, func(o *poolDriver) bool { return o == c })
}

// find returns the driver of the pool with a path; "" means the first pool.
func (cs *pools) find(path string) (*poolDriver, error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	i := slices.IndexFunc(cs.all, func(c *poolDriver) bool {
		return c.kind.ofConfig && (path == "" && !c.pool.ofHost || c.path == path)
	})
	if i < 0 {
		if i = slices.IndexFunc(cs.all, func(c *poolDriver) bool { return c.path == path+"/workers" }); i >= 0 { // path is a pool of jobs
			return nil, fmt.Errorf("%w: %q: its workers are %s", ErrNoPool, path, cs.all[i].path)
		}
		return nil, fmt.Errorf("%w: %q", ErrNoPool, path)
	}
	return cs.all[i], nil
}

// slot returns the driver and the number of the slot whose worker has a name.
func (cs *pools) slot(name string) (c *poolDriver, slot int, ok bool) {
	for _, c := range cs.list() {
		for _, slot := range c.slotNumbers() {
			if c.name(slot) == name {
				return c, slot, true
			}
		}
	}
	return nil, 0, false
}

// list returns the drivers of the pools. That of the listener process is last: by then a reload has
// shown that the new program starts.
func (cs *pools) list() []*poolDriver {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	out := slices.Clone(cs.all)
	slices.SortStableFunc(out, func(a, b *poolDriver) int {
		switch {
		case a.kind.ofConfig == b.kind.ofConfig:
			return 0
		case a.kind.ofConfig:
			return -1
		}
		return 1
	})
	return out
}

// showOccupants gives the nodes of slots the info of the present or last worker of each, and the
// time since which a worker runs that has replaced another.
func (c *poolDriver) showOccupants(nodes []supervisor.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	byID := make(map[string]*poolSlot, len(c.slots))
	for slot, s := range c.slots {
		byID[c.slotID(slot)] = s
	}
	for i := range nodes {
		n := &nodes[i]
		s := byID[n.ID]
		if s.occupant() == nil {
			if s != nil && s.incarnations > 0 { // its last worker was of the image before
				n.Info = info{role: Role(c.kind.role), Identity: Identity{Name: c.name(s.number), Slot: s.number, Incarnation: s.incarnations}}
			}
			continue
		}
		n.Info = s.worker.info()
		if n.Status == supervisor.Running && s.since.After(n.Since) {
			n.Since = s.since
		}
	}
}

// unslotted returns the workers without a slot, for the snapshot: spares, candidates for a slot,
// and workers that drain.
func (c *poolDriver) unslotted() []supervisor.Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	var nodes []supervisor.Node
	for _, w := range c.workers {
		if !w.launched || w.finished() || c.slots[w.slot].occupant() == w {
			continue
		}
		n := supervisor.Node{Path: w.name(), ID: w.name(), Restart: supervisor.Temporary, Status: supervisor.Running, Since: w.startedAt}
		i := w.info()
		switch {
		case !w.drainAsked.IsZero():
			n.Status, n.Since = supervisor.Stopping, w.drainAsked
			i.role = RoleDraining
		case w.slot == pool.Spare:
			i.role = RoleSpare
			if !childproto.IsClosed(w.standby) {
				n.Status = supervisor.Starting
			}
		case w.slot == pool.Trial && childproto.IsClosed(w.ready):
			i.role = RoleSpare
		case !w.hadSlot:
			n.Status = supervisor.Starting
			i.role = RoleCandidate
		}
		n.Info = i
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b supervisor.Node) int {
		return cmp.Compare(a.Info.(info).ID, b.Info.(info).ID)
	})
	return nodes
}
