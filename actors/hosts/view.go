package hosts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts/internal/lease"
)

// A Holder is who holds a name of the cluster.
type Holder struct {
	Fence Fence
	Host  string
	Boot  string
	Value []byte     // what it has given to Register
	PID   *actor.PID // what it has given to RegisterActor; else nil
}

// A clusterView is the entries of a cluster as the watch has shown them.
type clusterView struct {
	mu      sync.Mutex
	entries map[string]Entry // by key
	listed  bool
	changed chan struct{} // closed at each change
}

func newView() *clusterView {
	return &clusterView{entries: make(map[string]Entry), changed: make(chan struct{})}
}

func (v *clusterView) get(key string) (Entry, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	e, ok := v.entries[key]
	return e, ok
}

// next returns what is closed at the next change, and whether there has been a first one.
func (v *clusterView) next() (<-chan struct{}, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed, v.listed
}

// apply enters changes, and returns those that are new: what was deleted, then what was made.
func (v *clusterView) apply(changes []Change) (gone, made []Entry) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, c := range changes {
		old, there := v.entries[c.Entry.Key]
		if there && (c.Deleted || old.Created != c.Entry.Created) {
			gone = append(gone, old)
			delete(v.entries, c.Entry.Key)
			there = false
		}
		if !c.Deleted {
			v.entries[c.Entry.Key] = c.Entry
			if !there {
				made = append(made, c.Entry)
			}
		}
	}
	v.listed = true
	close(v.changed)
	v.changed = make(chan struct{})
	return gone, made
}

// replace enters a listing in place of what there was.
func (v *clusterView) replace(l Listing) (gone, made []Entry) {
	there := make(map[string]bool)
	var changes []Change
	for _, e := range l.Entries {
		there[e.Key] = true
		changes = append(changes, Change{Entry: e})
	}
	v.mu.Lock()
	for key := range maps.Keys(v.entries) {
		if !there[key] {
			changes = append(changes, Change{Entry: Entry{Key: key}, Deleted: true})
		}
	}
	v.mu.Unlock()
	return v.apply(changes)
}

// watch keeps the view, and tells the machine what concerns it, until ctx ends.
func (n *Names) watch() {
	after := uint64(0)
	for listed := false; n.ctx.Err() == nil; {
		if !listed {
			ctx, cancel := context.WithTimeout(n.ctx, n.cfg.Lease)
			l, err := n.engine.List(ctx, n.root)
			cancel()
			if err == nil {
				n.listed(l)
				n.tell(n.view.replace(l))
				after, listed = l.Revision, true
			}
		}
		if listed {
			for c, err := range n.engine.Watch(n.ctx, n.root, after) {
				if err != nil {
					listed = !errors.Is(err, ErrCompacted)
					break
				}
				n.tell(n.view.apply(c.Changes))
				after = c.Revision
			}
		}
		select {
		case <-n.ctx.Done():
		case <-time.After(n.cfg.Lease / 20): // then once more
		}
	}
}

// listed tells the machine what there is: it may hold what was deleted before the watch began.
func (n *Names) listed(l Listing) {
	ev := lease.Event{Kind: lease.Listed, Revision: l.Revision, Made: make(map[string]uint64)}
	for _, e := range l.Entries {
		if name, ok := strings.CutPrefix(e.Key, n.root+"names/"); ok {
			ev.Made[name] = e.Created
		} else if e.Key == n.hostKey() {
			ev.Entered = e.Created
		}
	}
	n.hear(ev)
}

// tell posts what the machine needs to know of, in order.
func (n *Names) tell(gone, made []Entry) {
	for _, e := range gone {
		if name, ok := strings.CutPrefix(e.Key, n.root+"names/"); ok {
			n.hear(lease.Event{Kind: lease.Vanished, Name: name, Revision: e.Created})
		} else if e.Key == n.hostKey() {
			n.hear(lease.Event{Kind: lease.Vanished, Revision: e.Created})
		}
	}
	if n.cfg.shown != nil {
		n.cfg.shown(gone, made)
	}
	for _, e := range made {
		if name, ok := strings.CutPrefix(e.Key, n.root+"names/"); ok {
			var r holderValue
			if json.Unmarshal(e.Value, &r) == nil && r.Owner == n.owner {
				n.hear(lease.Event{Kind: lease.Seen, Name: name, Token: r.Token, Lease: int64(e.Lease), Revision: e.Created})
			}
		}
	}
}

func (n *Names) hear(ev lease.Event) { n.post(func() { n.step(ev) }) }

// Lookup returns who holds a name of the cluster. It asks nobody: it is as fresh as the watch, some
// milliseconds behind, and never goes back. Errors: actors.ErrNoActor if nobody holds it;
// ErrUnavailable while there is no session, unless this host holds it.
func (n *Names) Lookup(name string) (Holder, error) {
	if err := CheckName(name); err != nil {
		return Holder{}, err
	}
	n.mu.Lock()
	live, held := n.session.Live, n.held[name]
	n.mu.Unlock()
	if held != nil {
		return Holder{Fence: held.fence, Host: n.cfg.Host, Boot: n.cfg.Boot, Value: append([]byte(nil), held.wish.value...), PID: held.wish.pid}, nil
	}
	if _, listed := n.view.next(); !live || !listed {
		return Holder{}, fmt.Errorf("hosts: look up %q: %w", name, n.why())
	}
	e, ok := n.view.get(n.nameKey(name))
	var r holderValue
	if !ok || json.Unmarshal(e.Value, &r) != nil {
		return Holder{}, fmt.Errorf("hosts: look up %q: %w", name, actors.ErrNoActor)
	}
	return Holder{Fence: Fence{Name: name, Number: e.Created}, Host: r.Host, Boot: r.Boot, Value: r.Value, PID: r.pid()}, nil
}

func (r *holderValue) pid() *actor.PID {
	if r.Address == "" {
		return nil
	}
	return actor.NewPID(r.Address, r.ID)
}

// checkPart returns nil if name can be a part of a key: a name without a slash.
func checkPart(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if strings.Contains(name, "/") {
		return fmt.Errorf("hosts: %q: a slash: %w", name, actors.ErrName)
	}
	return nil
}
