package fdipc

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"
)

// doors are descriptors for closers: one that is a multiple of ten closes only once it is opened.
type doors struct {
	closePool
	mu     sync.Mutex
	closed []int32
	some   chan struct{} // one may have been closed
	stuck  chan struct{} // a goroutine waits at a door
	opened chan struct{}
}

func newDoors(excess func(error)) *doors {
	d := &doors{some: make(chan struct{}, 1), stuck: make(chan struct{}, 2), opened: make(chan struct{})}
	d.init(2, excess)
	d.stuckAfter, d.patience = time.Millisecond, 2*time.Millisecond
	d.kernel = func(xs []closeJob, _ bool) {
		for _, x := range xs {
			if x.fd%10 == 0 {
				select {
				case d.stuck <- struct{}{}:
				default:
				}
				<-d.opened
			}
			d.mu.Lock()
			d.closed = append(d.closed, x.fd)
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
	for end := time.After(10 * time.Second); ; {
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

// TestClosersStuck: a close that does not end holds up none that come after it, and the close itself ends when it can.
func TestClosersStuck(t *testing.T) {
	d := newDoors(nil)
	d.close(10)
	d.close(1)
	d.addLazily(closeJob{fd: 2}, closeJob{fd: 3})
	d.wait(t, 1, 2, 3)
	close(d.opened)
	d.wait(t, 1, 2, 3, 10)
	d.addLazily(closeJob{fd: 4})
	d.wait(t, 1, 2, 3, 4, 10)
}

// TestClosersStuckAll: the peer whose descriptors hold up every goroutine is cut off, however few more wait.
func TestClosersStuckAll(t *testing.T) {
	cut := make(chan error, 1)
	d := newDoors(func(err error) {
		select {
		case cut <- err:
		default:
		}
	})
	defer close(d.opened)
	for range 2 {
		d.close(10)
		<-d.stuck
	}
	d.close(1)
	select {
	case err := <-cut:
		if !errors.Is(err, ErrExcess) {
			t.Errorf("error %v, want ErrExcess", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("not cut off")
	}
}

// TestClosersExcess: the reader of a peer whose descriptors hold up every goroutine, while many more wait, goes on when the peer is
// cut off.
func TestClosersExcess(t *testing.T) {
	cut := make(chan error, 1)
	d := newDoors(func(err error) { cut <- err })
	d.close(10)
	<-d.stuck
	d.close(10)
	<-d.stuck
	for range maxToClose {
		d.close(10)
	}
	over := make(chan struct{})
	d.throttle(over) // not at the bound
	d.close(10)
	throttled := make(chan struct{})
	go func() {
		d.throttle(over)
		close(throttled)
	}()
	if err := <-cut; !errors.Is(err, ErrExcess) {
		t.Errorf("error %v, want ErrExcess", err)
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

// TestClosersRoom: a reader that waits with what is yet to be closed goes on when that has become less.
func TestClosersRoom(t *testing.T) {
	d := newDoors(nil)
	d.close(10)
	<-d.stuck
	for range 2 + maxToClose {
		d.close(10)
	}
	throttled := make(chan struct{})
	go func() {
		d.throttle(nil)
		close(throttled)
	}()
	close(d.opened)
	<-throttled
}
