package otlp

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel"
)

// sink is the far end of a queue under test.
type sink struct {
	mu      sync.Mutex
	batches [][]int
	err     error
	block   chan struct{} // when not nil, send waits for it or for its context
}

func (s *sink) send(ctx context.Context, batch []int) (int, error) {
	if s.block != nil {
		select {
		case <-s.block:
		case <-ctx.Done():
			return len(batch), ctx.Err()
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.batches = append(s.batches, slices.Clone(batch))
	if s.err != nil {
		return len(batch), s.err
	}
	return 0, nil
}

// sent returns the items that came through so far, and how many batches they were.
func (s *sink) sent() (items []int, batches int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.batches...), len(s.batches)
}

// newTestQueue makes a queue of 8 that sends 4 at a time, after 200 ms at most.
func newTestQueue(s *sink) *queue[int] {
	return newQueue(queueConfig[int]{
		limit: 8, batch: 4, delay: 200 * time.Millisecond,
		weight: func(int) int { return 1 },
		send:   s.send,
	})
}

func putAll(q *queue[int], n int) {
	for i := range n {
		q.put(i)
	}
}

func (q *queue[T]) check(t *testing.T, accepted, dropped uint64) {
	t.Helper()
	if a, d := q.accepted.Load(), q.dropped.Load(); a != accepted || d != dropped {
		t.Errorf("%d accepted, %d dropped; want %d, %d", a, d, accepted, dropped)
	}
}

func TestQueueSendsAfterTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		q := newTestQueue(&s)
		putAll(q, 3)
		synctest.Wait()
		if items, _ := s.sent(); items != nil {
			t.Errorf("sent at once: %v", items)
		}
		<-time.After(200 * time.Millisecond) // by the bubble's clock
		synctest.Wait()
		if items, n := s.sent(); n != 1 || !slices.Equal(items, []int{0, 1, 2}) {
			t.Errorf("sent %v in %d batches", items, n)
		}
		if err := q.close(t.Context()); err != nil {
			t.Error(err)
		}
		q.check(t, 3, 0)
	})
}

func TestQueueSendsAFullBatchAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		q := newTestQueue(&s)
		putAll(q, 4)
		synctest.Wait()
		if items, n := s.sent(); n != 1 || len(items) != 4 {
			t.Errorf("sent %v in %d batches", items, n)
		}
		if err := q.close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestQueueDropsAndCountsAtItsLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := sink{block: make(chan struct{})}
		q := newTestQueue(&s)
		putAll(q, 4)
		synctest.Wait() // these four are being sent
		putAll(q, 10)   // eight fit
		close(s.block)
		if err := q.close(t.Context()); err != nil {
			t.Error(err)
		}
		q.check(t, 14, 2)
		if items, _ := s.sent(); len(items) != 12 {
			t.Errorf("%d sent, want 12", len(items))
		}
	})
}

func TestQueueCountsWhatWasRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var handled []error
		otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { handled = append(handled, err) }))
		defer otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) {}))
		boom := errors.New("boom")
		s := sink{err: boom}
		q := newTestQueue(&s)
		for range 3 {
			putAll(q, 4)
			synctest.Wait()
		}
		if err := q.close(t.Context()); err != nil {
			t.Error(err)
		}
		q.check(t, 12, 12)
		if len(handled) != 1 || !errors.Is(handled[0], boom) {
			t.Errorf("reported %v, want the first failure only", handled)
		}
	})
}

func TestQueueFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s sink
		start := time.Now()
		q := newTestQueue(&s)
		for n := range 3 {
			putAll(q, n)
			if err := q.flush(t.Context()); err != nil {
				t.Error(err)
			}
			if items, _ := s.sent(); len(items) != n*(n+1)/2 {
				t.Errorf("after a flush of %d: %d sent", n, len(items))
			}
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("the flushes waited %v", d)
		}
		if err := q.close(t.Context()); err != nil {
			t.Error(err)
		}
		if err := q.flush(t.Context()); err != nil {
			t.Errorf("flush after close: %v", err)
		}
	})
}

// Every moment x what ends it.
func TestQueueClose(t *testing.T) {
	for _, row := range []struct {
		name    string
		puts    int
		blocked bool // the far end takes nothing
		sent    int
		dropped uint64
		err     error
	}{
		{"empty", 0, false, 0, 0, nil},
		{"before the delay", 3, false, 3, 0, nil},
		{"more than a batch", 8, false, 8, 0, nil},
		{"far end stuck, nothing queued behind", 4, true, 0, 4, context.DeadlineExceeded},
		{"far end stuck", 8, true, 0, 8, context.DeadlineExceeded},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var s sink
				if row.blocked {
					s.block = make(chan struct{})
				}
				q := newTestQueue(&s)
				putAll(q, row.puts)
				if row.blocked {
					synctest.Wait()
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if err := q.close(ctx); !errors.Is(err, row.err) {
					t.Errorf("close: %v, want %v", err, row.err)
				}
				<-q.done
				q.check(t, uint64(row.puts), row.dropped)
				if items, _ := s.sent(); len(items) != row.sent {
					t.Errorf("%d sent, want %d", len(items), row.sent)
				}
				q.put(0)
				q.check(t, uint64(row.puts)+1, row.dropped+1)
				if err := q.close(t.Context()); err != nil {
					t.Errorf("second close: %v", err)
				}
			})
		})
	}
}
