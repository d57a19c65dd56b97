package pool

import (
	"slices"
	"testing"
	"time"
)

// replaced returns the pool that goes on in the place of s, with a worker in each slot that has
// one.
func replaced(t *testing.T, s *State, now Time) *State {
	t.Helper()
	book := s.Book(now)
	n := New(s.cfg, s.gen)
	n.Recall(book)
	if again := n.Book(0); len(again) != len(book) {
		t.Fatalf("%d slots, of %d", len(again), len(book))
	}
	for _, sl := range s.inOrder() {
		if sl.running {
			n.Step(0, Event{Kind: Start, Slot: sl.n})
			n.Step(0, Event{Kind: Ready, Worker: n.last})
		}
	}
	return n
}

// kinds returns the kinds of effects.
func kinds(effects []Effect) (ks []EffectKind) {
	for _, e := range effects {
		ks = append(ks, e.Kind)
	}
	return ks
}

// TestBook: what a pool remembers of a slot goes on in the pool that takes its place.
func TestBook(t *testing.T) {
	start := func() *State {
		s := New(Config{Surge: 1, Draining: 4, Recycling: 1, Retry: time.Minute, MaxRetry: time.Hour}, 3)
		for n := range 3 {
			s.Step(0, Event{Kind: Start, Slot: n})
			s.Step(0, Event{Kind: Ready, Worker: s.last})
		}
		return s
	}
	t.Run("a brake", func(t *testing.T) {
		s := start()
		s.Step(time.Second, Event{Kind: Due, Worker: 1, Brake: true})
		s.Step(time.Second, Event{Kind: Ready, Worker: 4}) // it is over its limit too, soon
		s.Step(2*time.Second, Event{Kind: Ended, Worker: 1})
		s = replaced(t, s, 2*time.Second)
		if got := s.Step(0, Event{Kind: Due, Worker: 1, Brake: true}); !slices.Equal(kinds(got), []EffectKind{Hold, Wake}) || got[0].At != 9*time.Second {
			t.Errorf("due early again: %+v", got)
		}
		s = replaced(t, s, 4*time.Second) // while it is held
		if got := s.Step(5*time.Second-1, Event{Kind: Tick}); slices.Contains(kinds(got), Launch) {
			t.Errorf("held: %+v", got)
		}
		if got := s.Step(5*time.Second, Event{Kind: Tick}); !slices.Contains(kinds(got), Launch) {
			t.Errorf("held no more: %+v", got)
		}
	})
	t.Run("a retry", func(t *testing.T) {
		s := start()
		s.Step(time.Second, Event{Kind: Due, Worker: 2})
		s.Step(time.Second, Event{Kind: Ended, Worker: 4}) // the next try is in a minute
		s = replaced(t, s, 31*time.Second)
		if got := s.Step(30*time.Second-1, Event{Kind: Tick}); slices.Contains(kinds(got), Launch) {
			t.Errorf("before the wait is over: %+v", got)
		}
		got := s.Step(30*time.Second, Event{Kind: Tick})
		if len(got) == 0 || got[0].Kind != Launch || got[0].Slot != 1 {
			t.Fatalf("after it: %+v", got)
		}
		if got := s.Step(30*time.Second, Event{Kind: Ended, Worker: got[0].Worker}); !slices.Equal(kinds(got), []EffectKind{Wake}) || got[0].At != 150*time.Second {
			t.Errorf("it has failed twice: %+v", got)
		}
	})
	t.Run("a slot that waits", func(t *testing.T) {
		s := start()
		s.Step(time.Second, Event{Kind: Ended, Worker: 2})
		s = replaced(t, s, time.Minute)
		if got := s.Step(0, Event{Kind: Roll, Gen: 4}); got[0].Kind != Launch || got[0].Slot != 1 || got[0].Gen != 4 { // it comes first
			t.Errorf("a reload: %+v", got)
		}
		s.Step(0, Event{Kind: Ready, Worker: 3})
		if got := s.Step(time.Second, Event{Kind: Start, Slot: 1}); got[0].Kind != Up || got[0].Gen != 4 {
			t.Errorf("its restart: %+v", got)
		}
	})
	t.Run("a slot that has ended for good", func(t *testing.T) {
		s := start()
		s.Step(time.Second, Event{Kind: Ended, Worker: 2, Final: true})
		s = replaced(t, s, time.Minute)
		s.Step(0, Event{Kind: Roll, Gen: 4})
		if got := s.Book(0); s.slots[1].next != 0 || !got[1].Done {
			t.Errorf("a reload starts it: %+v", got)
		}
	})
	t.Run("what no pool has written", func(t *testing.T) {
		s := New(Config{MaxRetry: time.Minute}, 1)
		s.Recall([]SlotBook{{N: -1}, {N: 4, Age: -1, Early: -1, Failures: -1, Hold: -1, Retry: 1 << 62}, {N: 4, Done: true}})
		if got := s.Book(0); len(got) != 1 || got[0] != (SlotBook{N: 4, Retry: time.Minute}) {
			t.Errorf("%+v", got)
		}
	})
}
