package actors

import (
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// nameChanges is the part of the master's registry that keeps the caches of the children right:
// which child caches which name, and which changes some of them have not acknowledged.
type nameChanges struct {
	mu          sync.Mutex
	last        uint64
	remembering map[string]map[string]struct{} // key -> addresses of the children that cache it
	perProcess  map[string]int                 // address -> number of its keys
	open        map[uint64]*nameChange
}

// nameChange is a change that some children have not acknowledged.
type nameChange struct {
	waitsFor map[string]int // address -> frames that it has not acknowledged
	done     func()
	timer    *time.Timer
}

// remember notes that the child with an address will cache a name. A child that hears of a change
// does not cache the name any more, until it asks again. remember returns false if that child
// caches too many: then it has forgotten all keys of the child, which must be told before it is
// answered.
func (c *nameChanges) remember(address, name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := len(name); i > 0; i = strings.LastIndexByte(name[:i], '/') {
		key := name[:i] // the holder of a prefix decides too
		who := c.remembering[key]
		if who == nil {
			who = make(map[string]struct{})
			c.remembering[key] = who
		}
		if _, ok := who[address]; !ok {
			who[address] = struct{}{}
			c.perProcess[address]++
		}
	}
	if c.perProcess[address] <= maxRemembered {
		return true
	}
	c.forgetProcessLocked(address)
	return false
}

// tells reports whether a process caches names of this one.
func (c *nameChanges) tells(address string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.perProcess[address] > 0
}

// forgetProcessLocked forgets all keys of a child.
func (c *nameChanges) forgetProcessLocked(address string) {
	for key, who := range c.remembering {
		if delete(who, address); len(who) == 0 {
			delete(c.remembering, key)
		}
	}
	delete(c.perProcess, address)
}

// remember notes that a child will cache a name, and tells the child to forget all if it has too
// many.
func (n *names) remember(address, name string) {
	if n.changes.remember(address, name) {
		return
	}
	if p := n.peers.find(address); p != nil {
		p.post(n.frame(wire.KindNameChanged, fdipc.Control), func(b []byte) []byte {
			return wire.AppendString(binary.AppendUvarint(wire.AppendPID(b, ProcessPID(address)), 0), "") // all
		})
	}
}

// tellChanged tells all children that cache a name that it has changed, and calls done when they
// have acknowledged that, or after changeWait.
func (n *names) tellChanged(name string, done func()) {
	c := &n.changes
	keys := []string{name}
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		keys = append(keys, name[:i]+"/*")
	}
	c.mu.Lock()
	change := &nameChange{waitsFor: make(map[string]int), done: done}
	tell := make(map[string][]string) // key -> addresses
	for _, key := range keys {
		for a := range c.remembering[key] {
			if !n.isForeign(a) { // other hosts hear of it, and are not waited for
				change.waitsFor[a]++
			}
			c.perProcess[a]--
			tell[key] = append(tell[key], a)
		}
		delete(c.remembering, key)
	}
	c.last++
	seq := c.last
	waits := len(change.waitsFor) > 0
	if waits {
		c.open[seq] = change
		change.timer = time.AfterFunc(changeWait, func() { c.finish(seq) })
	}
	c.mu.Unlock()
	if !waits {
		defer done()
	}
	for key, list := range tell {
		for _, a := range list {
			p := n.peers.find(a)
			if p == nil {
				c.acknowledged(seq, a)
				continue
			}
			p.post(n.frame(wire.KindNameChanged, fdipc.Control), func(b []byte) []byte {
				b = binary.AppendUvarint(wire.AppendPID(b, ProcessPID(a)), seq)
				return wire.AppendString(b, key)
			})
		}
	}
}

// acknowledged notes that a child has forgotten the keys of a change.
func (c *nameChanges) acknowledged(seq uint64, address string) {
	c.mu.Lock()
	change := c.open[seq]
	if change != nil {
		if change.waitsFor[address]--; change.waitsFor[address] <= 0 {
			delete(change.waitsFor, address)
		}
	}
	over := change != nil && len(change.waitsFor) == 0
	c.mu.Unlock()
	if over {
		c.finish(seq)
	}
}

// finishAll ends the changes that are open.
func (c *nameChanges) finishAll() {
	c.mu.Lock()
	open := slices.Collect(maps.Keys(c.open))
	c.mu.Unlock()
	for _, seq := range open {
		c.finish(seq)
	}
}

func (c *nameChanges) finish(seq uint64) {
	c.mu.Lock()
	change := c.open[seq]
	delete(c.open, seq)
	c.mu.Unlock()
	if change != nil {
		change.timer.Stop()
		change.done()
	}
}

// processEnded forgets a child, and ends the changes that wait for it alone.
func (c *nameChanges) processEnded(address string) {
	c.mu.Lock()
	var finished []*nameChange
	c.forgetProcessLocked(address)
	for seq, change := range c.open {
		if _, ok := change.waitsFor[address]; !ok {
			continue
		}
		if delete(change.waitsFor, address); len(change.waitsFor) == 0 {
			delete(c.open, seq)
			finished = append(finished, change)
		}
	}
	c.mu.Unlock()
	for _, change := range finished {
		change.timer.Stop()
		change.done()
	}
}
