package supervisor

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// tree is what the supervisors of a tree share.
type tree struct {
	mu       sync.Mutex
	running  map[string]*Supervisor // by path; those that were restored from Resume on
	restored []*Supervisor          // they wait for Resume
	saved    map[string]*savedSupervisor
	adopt    func(path string) Instance
}

func (t *tree) add(s *Supervisor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running[s.path] = s
}

func (t *tree) remove(s *Supervisor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.running[s.path] == s {
		delete(t.running, s.path)
	}
}

// below returns the supervisors at path and below it, those above others first.
func (t *tree) below(path string) (all []*Supervisor) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range slices.Sorted(maps.Keys(t.running)) {
		if p == path || strings.HasPrefix(p, path+"/") {
			all = append(all, t.running[p])
		}
	}
	return all
}

// has reports whether a supervisor runs at path.
func (t *tree) has(path string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.running[path] != nil
}

// hold is a Suspend under way.
type hold struct {
	carried func(path string, i Instance) bool
	begun   bool          // the rules hold
	parted  bool          // the instances that end with the program are stopped
	done    chan struct{} // closed when nothing is under way any more
}

// Suspend makes this supervisor, and all below it, decide nothing until Resume: no child is
// started, restarted or given up; calls, ends and delays that are over wait. It returns when
// nothing is under way any more: it waits for starts and stops that have begun, but begins none.
// The tree can then go on in another image of the program; see State.
//
// What runs in the program's memory does not outlive it. So an instance for which carried returns
// false, as it should for a Func, is stopped as by TerminateChild, last started first, and started
// again by Resume, here or in the other image. Nothing has failed then: that is not counted as a
// restart, and no group is restarted with it. Supervisors are always carried. carried is called on
// the supervisors' goroutines and must not block; nil carries nothing else.
//
// If ctx ends before, or the supervisor does, Suspend resumes the tree and returns the error. A
// child must not wait for Suspend.
func (s *Supervisor) Suspend(ctx context.Context, carried func(path string, i Instance) bool) error {
	for todo := []*Supervisor{s}; len(todo) > 0; todo = todo[1:] {
		at := todo[0]
		if err := at.suspend(ctx, carried); err != nil && (at == s || !errors.Is(err, ErrStopped)) {
			s.Resume()
			return s.callError("Suspend", "", err)
		}
		// Those below are all there: no start is under way.
		for _, b := range s.tree.below(at.path) {
			if strings.Count(b.path, "/") == strings.Count(at.path, "/")+1 {
				todo = append(todo, b)
			}
		}
	}
	return nil
}

// suspend is Suspend without what is below.
func (s *Supervisor) suspend(ctx context.Context, carried func(string, Instance) bool) error {
	h := &hold{carried: carried, done: make(chan struct{})}
	if !s.inbox.post(message{do: func() { s.loop.hold = h }}) {
		return ErrStopped
	}
	select {
	case <-h.done:
		return nil
	case <-s.done:
		return ErrStopped
	case <-ctx.Done():
	}
	for c := range s.view.Load().children.all() {
		if n := &c.node; n.Status == Starting || n.Status == Stopping || n.Status == Restarting && n.NextAttempt.IsZero() {
			return fmt.Errorf("%s is %v: %w", n.Path, n.Status, ctx.Err())
		}
	}
	return ctx.Err()
}

// beginHold makes the rules hold, once they are through with what is under way for the supervisor
// as a whole.
func (l *loop) beginHold() {
	if h := l.hold; h != nil && !h.begun && (l.state.Work == rules.Idle || l.state.Work == rules.HoldWork) {
		h.begun = true
		l.step(rules.Event{Kind: rules.Hold})
	}
}

// held is called when nothing is under way any more: first to stop what is not carried, and again
// when that has stopped.
func (l *loop) held() {
	h := l.hold
	if h == nil || l.state.Work != rules.HoldWork {
		return
	}
	if h.parted {
		l.heldAt = l.now
		l.event(Event{Kind: SupervisorSuspended, Path: l.s.path})
		l.actions = append(l.actions, func() { close(h.done) })
		return
	}
	h.parted = true
	var keys []rules.Key
	for key, child := range l.children {
		if child.inst != nil && !l.s.tree.has(child.path) && (h.carried == nil || !h.carried(child.path, child.inst)) {
			keys = append(keys, key)
		}
	}
	l.step(rules.Event{Kind: rules.Hold, Keys: keys})
}

// Resume ends Suspend, and sets going what Restore has returned. It does not wait. Without either
// it does nothing.
func (s *Supervisor) Resume() {
	t := s.tree
	t.mu.Lock()
	restored := t.restored
	t.restored = nil
	t.mu.Unlock()
	for _, r := range restored {
		r.loop.watchAll()
		r.run()
	}
	for _, b := range slices.Backward(t.below(s.path)) { // what is above may stop it
		b.inbox.post(message{do: func() {
			b.loop.hold = nil
			b.loop.step(rules.Event{Kind: rules.Release})
		}})
	}
}
