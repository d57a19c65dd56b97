package supervisor

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// house is an instance whose Info changes while it lives.
type house struct {
	Base
	holder atomic.Value
	done   chan struct{}
}

func (h *house) Info() any             { return h.holder.Load() }
func (h *house) Done() <-chan struct{} { return h.done }
func (h *house) Reason() Reason        { return Reason{Kind: Shutdown} }
func (h *house) Stop()                 { close(h.done) }
func (h *house) Kill()                 {}

// TestNote: a note is an event, and renews what the snapshot shows of its child. A note of a
// replacement makes a further incarnation of it.
func TestNote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &house{done: make(chan struct{})}
		h.holder.Store("first")
		s := mustStart(t, Spec{Name: "app", Children: []ChildSpec{
			{ID: "h", Start: StarterFunc(func(context.Context, Incarnation) (Instance, error) { return h, nil })},
			{ID: "f", Start: Func(idle)},
		}})
		sub := s.Subscribe(10)
		h.holder.Store("second")
		s.Note("h", "moved", false)
		s.Note("f", 7, false)
		s.Note("unknown", 8, true)
		s.Note("", "all well", false)
		s.Note("h", "another", true)
		wantStory(t, sub, "app/h#1 noted: moved", "app/f#1 noted: 7", "app noted: 8", "app noted: all well", "app/h#2 noted: another")
		n := s.Snapshot()
		if h := n.Find("h"); h.Info != "second" || h.Incarnation != 2 {
			t.Errorf("the snapshot shows %v, incarnation %d", h.Info, h.Incarnation)
		}
		shutdown(t, s)
		s.Note("h", "too late", true)
	})
}

// TestLifeOfReplaced: the life that is told of an instance whose content was replaced is that of
// the last content.
func TestLifeOfReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &house{done: make(chan struct{})}
		s := mustStart(t, Spec{Name: "app", Children: []ChildSpec{
			{ID: "h", Start: StarterFunc(func(context.Context, Incarnation) (Instance, error) { return h, nil }), Restart: Temporary},
		}})
		sub := s.Subscribe(10)
		time.Sleep(time.Hour)
		s.Note("h", "moved", false)
		s.Note("h", "another", true)
		synctest.Wait()
		time.Sleep(time.Minute)
		close(h.done)
		for ev := range sub.Events(t.Context()) {
			if ev.Kind != ChildExited {
				continue
			}
			if ev.Took != time.Minute {
				t.Errorf("it lived for %v, want a minute", ev.Took)
			}
			break
		}
		shutdown(t, s)
	})
}
