package queue_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/queue"
)

// TestBound: while Take is stuck with the first value, the queue keeps what its bound allows, and
// drops and counts the rest. What is kept is taken in order, and Lost's value stands where the
// dropped ones would.
func TestBound(t *testing.T) {
	lost := func(n uint64) string { return fmt.Sprintf("-%d", n) }
	for _, tt := range []struct {
		name string
		cfg  queue.Config[string]
		put  []string
		kept []bool
		want []string // taken in the end
		lost uint64
	}{
		{"room for all", queue.Config[string]{Max: 3}, []string{"a", "b", "c"}, []bool{true, true, true}, []string{"a", "b", "c"}, 0},
		{"one too many", queue.Config[string]{Max: 2}, []string{"a", "b", "c"}, []bool{true, true, false}, []string{"a", "b"}, 1},
		{"reported at the end", queue.Config[string]{Max: 2, Lost: lost}, []string{"a", "b", "c", "d"}, []bool{true, true, false, false}, []string{"a", "b", "-2"}, 2},
		{
			"by cost",
			queue.Config[string]{Max: 4, Cost: func(s string) int { return len(s) }, Lost: lost},
			[]string{"aa", "bbb", "c", "dd"},
			[]bool{true, false, true, false},
			[]string{"aa", "-1", "c", "-1"},
			2,
		},
		{"longer than the bound", queue.Config[string]{Max: 2, Cost: func(s string) int { return len(s) }}, []string{"aaa"}, []bool{false}, nil, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var taken []string
				free := make(chan struct{})
				tt.cfg.Take = func(s string) error {
					<-free
					taken = append(taken, s)
					return nil
				}
				q := queue.New(tt.cfg)
				var kept []bool
				for _, s := range tt.put {
					kept = append(kept, q.Put(s))
				}
				close(free)
				if n := q.Close(time.Second); n != tt.lost || q.Lost() != tt.lost {
					t.Errorf("lost %d, want %d", n, tt.lost)
				}
				if !slices.Equal(kept, tt.kept) || !slices.Equal(taken, tt.want) {
					t.Errorf("kept %v, taken %q; want %v, %q", kept, taken, tt.kept, tt.want)
				}
				if q.Put("late") {
					t.Error("a closed queue takes a value")
				}
			})
		})
	}
}

// TestPatience: Put waits for room as long as the Patience is. After a wait in vain no Put waits,
// until a value is taken.
func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		next := make(chan struct{})
		q := queue.New(queue.Config[int]{Max: 1, Patience: time.Second, Take: func(int) error { <-next; return nil }})
		put := func(v int, kept bool, wait time.Duration) {
			t.Helper()
			began := time.Now()
			if got := q.Put(v); got != kept || time.Since(began) != wait {
				t.Errorf("value %d: kept %v after %v, want %v after %v", v, got, time.Since(began), kept, wait)
			}
		}
		put(1, true, 0)
		put(2, false, time.Second)
		put(3, false, 0)
		next <- struct{}{}
		synctest.Wait()
		put(4, true, 0)
		time.AfterFunc(time.Second/2, func() { next <- struct{}{} })
		put(5, true, time.Second/2)
		close(next)
		if lost := q.Close(time.Second); lost != 2 {
			t.Errorf("lost %d, want 2", lost)
		}
	})
}

// TestTakeFails: a value that Take cannot deliver is counted. The close of a queue whose Take is
// stuck waits as long as it may, and counts what is left.
func TestTakeFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := queue.New(queue.Config[int]{Max: 9, Take: func(int) error { return errors.New("no room on the disk") }})
		q.Put(1)
		q.Put(2)
		if !q.Flush(time.Second) || q.Lost() != 2 {
			t.Errorf("lost %d, want 2", q.Lost())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		free := make(chan struct{})
		q := queue.New(queue.Config[int]{Max: 9, Take: func(int) error { <-free; return nil }})
		for v := range 3 {
			q.Put(v)
		}
		began := time.Now()
		if q.Flush(time.Second) {
			t.Error("all is taken")
		}
		if lost := q.Close(time.Second); lost != 3 || time.Since(began) != 2*time.Second {
			t.Errorf("lost %d after %v, want 3 after 2s", lost, time.Since(began))
		}
		close(free)
	})
}
