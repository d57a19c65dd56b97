// Package queue stands between code that must not wait and code that may block: a log, a file, a
// user's callback.
package queue

import (
	"sync"
	"time"
)

// Config describes a Queue.
type Config[T any] struct {
	// Take takes one value after another, on a goroutine of the queue. It may block. If it returns
	// an error, the value is lost.
	Take func(T) error

	// Max bounds the sum of the costs of the values that wait and of the one that is being taken.
	Max int

	// Cost returns the cost of a value; nil = 1 each.
	Cost func(T) int

	// Lost returns a value to take in the place of n values for which there was no room; nil =
	// none.
	Lost func(n uint64) T

	// Patience is how long Put waits for room; zero = not at all. When a Put has waited this long
	// and no value was taken, Put does not wait again until a value is taken.
	Patience time.Duration
}

// A Queue passes values to Config.Take in order. A value for which there is no room is dropped and
// counted. A Queue has a goroutine only while there is a value to take, so a Queue that is not
// closed costs nothing. Its methods may be called by any goroutine.
type Queue[T any] struct {
	cfg Config[T]

	mu     sync.Mutex // held briefly, never while a value is taken
	values []T
	used   int
	idle   chan struct{} // closed when all is taken; nil while there is nothing to take
	room   chan struct{} // closed when the next value is taken; nil while no Put waits
	stuck  bool          // a Put has waited in vain, and no value has been taken since
	closed bool
	owed   uint64 // lost, and not yet reported by Config.Lost
	lost   uint64
}

// New returns an empty queue.
func New[T any](cfg Config[T]) *Queue[T] {
	if cfg.Cost == nil {
		cfg.Cost = func(T) int { return 1 }
	}
	return &Queue[T]{cfg: cfg}
}

// Put queues a value and reports whether it is kept. It waits for room at most Config.Patience; if
// that is zero it never blocks.
func (q *Queue[T]) Put(v T) bool {
	cost := q.cfg.Cost(v)
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.awaitRoomLocked(cost) {
		q.owed++
		q.lost++
		return false
	}
	q.tellLocked()
	q.values = append(q.values, v)
	q.used += cost
	if q.idle == nil {
		q.idle = make(chan struct{})
		go q.run() // ends when all is taken
	}
	return true
}

// awaitRoomLocked waits until there is room for a value, and reports whether there is. It releases
// the lock while it waits.
func (q *Queue[T]) awaitRoomLocked(cost int) bool {
	var timeout <-chan time.Time
	for q.closed || q.used+cost > q.cfg.Max {
		if q.closed || q.stuck || q.cfg.Patience == 0 {
			return false
		}
		if timeout == nil {
			timeout = time.After(q.cfg.Patience)
		}
		if q.room == nil {
			q.room = make(chan struct{})
		}
		room, late := q.room, false
		q.mu.Unlock()
		select {
		case <-room:
		case <-timeout:
			late = true
		}
		q.mu.Lock()
		if late {
			q.stuck = q.room == room // no value was taken during the last wait
			return false
		}
	}
	return true
}

// tellLocked queues the value that stands in the place of lost ones.
func (q *Queue[T]) tellLocked() {
	if q.owed > 0 && q.cfg.Lost != nil {
		note := q.cfg.Lost(q.owed)
		q.values = append(q.values, note)
		q.used += q.cfg.Cost(note)
	}
	q.owed = 0
}

func (q *Queue[T]) run() {
	q.mu.Lock()
	for {
		if len(q.values) == 0 {
			q.tellLocked()
		}
		if len(q.values) == 0 {
			q.values = nil
			close(q.idle)
			q.idle = nil
			q.mu.Unlock()
			return
		}
		v := q.values[0]
		var zero T
		q.values[0] = zero
		q.values = q.values[1:]
		q.mu.Unlock()
		err := q.cfg.Take(v)
		q.mu.Lock()
		q.used -= q.cfg.Cost(v)
		q.stuck = false
		if q.room != nil {
			close(q.room)
			q.room = nil
		}
		if err != nil {
			q.lost++ // a value in its place would fail as well
		}
	}
}

// Flush waits until all is taken, at most d, and reports whether it is.
func (q *Queue[T]) Flush(d time.Duration) bool {
	q.mu.Lock()
	idle := q.idle
	q.mu.Unlock()
	if idle == nil {
		return true
	}
	select {
	case <-idle:
		return true
	case <-time.After(d):
		return false
	}
}

// Close refuses further values and waits until all are taken, at most d. Values that are not taken
// by then are lost. It returns how many values were lost in all.
func (q *Queue[T]) Close(d time.Duration) uint64 {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	done := q.Flush(d)
	q.mu.Lock()
	defer q.mu.Unlock()
	if !done && q.idle != nil {
		q.lost += uint64(len(q.values)) + 1 // and the value that is being taken
		q.values = nil
	}
	return q.lost
}

// Lost returns how many values were lost.
func (q *Queue[T]) Lost() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lost
}
