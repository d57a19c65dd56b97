package closer

import (
	"slices"
	"sync"
	"testing"
	"time"
)

// doors are descriptors for a Closer: one that is a multiple of ten closes only once it is opened.
type doors struct {
	Closer
	mu     sync.Mutex
	closed []int32
	some   chan struct{} // one may have been closed
	stuck  chan struct{} // a goroutine waits at a door
	opened chan struct{}
}

func newDoors(excess func(running, waiting int)) *doors {
	d := &doors{some: make(chan struct{}, 1), stuck: make(chan struct{}, 2), opened: make(chan struct{})}
	d.init(2, excess)
	d.stuckAfter, d.patience = time.Millisecond, 2*time.Millisecond
	d.kernel = func(xs []Item, _ bool) {
		for _, x := range xs {
			if x.FD%10 == 0 {
				select {
				case d.stuck <- struct{}{}:
				default:
				}
				<-d.opened
			}
			d.mu.Lock()
			d.closed = append(d.closed, x.FD)
			d.mu.Unlock()
			select {
			case d.some <- struct{}{}:
			default:
			}
		}
	}
	return d
}

// wait waits until want are closed, in any order.
func (d *doors) wait(t *testing.T, want ...int32) {
	t.Helper()
	for end := time.After(time.Minute); ; {
		d.mu.Lock()
		got := slices.Sorted(slices.Values(d.closed))
		d.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-d.some:
		case <-end:
			t.Fatalf("closed are %v, want %v", got, want)
		}
	}
}

// TestCloserStuck: a close that does not end holds up none that come after it, and the close itself
// ends when it can.
func TestCloserStuck(t *testing.T) {
	d := newDoors(nil)
	d.Close(10)
	d.Close(1)
	d.AddLazily(Item{FD: 2}, Item{FD: 3})
	d.wait(t, 1, 2, 3)
	close(d.opened)
	d.wait(t, 1, 2, 3, 10)
	d.AddLazily(Item{FD: 4})
	d.wait(t, 1, 2, 3, 4, 10)
}

// TestCloserStuckAll: the peer whose descriptors hold up every goroutine is cut off, however few
// more wait.
func TestCloserStuckAll(t *testing.T) {
	cut := make(chan int, 1)
	d := newDoors(func(_, waiting int) {
		select {
		case cut <- waiting:
		default:
		}
	})
	defer close(d.opened)
	for range 2 {
		d.Close(10)
		<-d.stuck
	}
	d.Close(1)
	select {
	case waiting := <-cut:
		if waiting != 1 {
			t.Errorf("%d more wait, want 1", waiting)
		}
	case <-time.After(time.Minute):
		t.Fatal("not cut off")
	}
}

// TestCloserExcess: the reader of a peer whose descriptors hold up every goroutine, while many more
// wait, goes on when the peer is cut off.
func TestCloserExcess(t *testing.T) {
	cut := make(chan int, 1)
	d := newDoors(func(running, _ int) { cut <- running })
	d.Close(10)
	<-d.stuck
	d.Close(10)
	<-d.stuck
	for range maxWaiting {
		d.Close(10)
	}
	over := make(chan struct{})
	d.Throttle(over) // not at the bound
	d.Close(10)
	throttled := make(chan struct{})
	go func() {
		d.Throttle(over)
		close(throttled)
	}()
	if running := <-cut; running != 2 {
		t.Errorf("%d do not end, want 2", running)
	}
	select {
	case <-throttled:
		t.Error("the reader went on before the cut")
	default:
	}
	close(over)
	<-throttled
	close(d.opened)
}

// TestCloserRoom: a reader that waits with what is yet to be closed goes on when that has become
// less.
func TestCloserRoom(t *testing.T) {
	d := newDoors(nil)
	d.Close(10)
	<-d.stuck
	for range 2 + maxWaiting {
		d.Close(10)
	}
	throttled := make(chan struct{})
	go func() {
		d.Throttle(nil)
		close(throttled)
	}()
	close(d.opened)
	<-throttled
}
