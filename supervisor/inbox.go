package supervisor

import (
	"sync"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// message is one item of an inbox.
type message struct {
	kind   rules.EventKind
	key    rules.Key
	run    uint64
	inst   Instance        // Started
	err    error           // StartFailed
	leaked <-chan struct{} // Exited: not nil if part of the instance was abandoned
	call   *call           // Request
	do     func()          // run on the goroutine; kind is not looked at
}

// inbox is the queue of a supervisor's goroutine. Its length is bounded by its senders: at most two
// messages for each child, one for each caller, and one each for Stop and Kill.
type inbox struct {
	mu     sync.Mutex
	queue  []message // guarded by mu
	closed bool      // guarded by mu
	wake   chan struct{}
}

// post adds a message and reports whether it will be read. It never waits.
func (b *inbox) post(m message) bool {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return false
	}
	b.queue = append(b.queue, m)
	b.mu.Unlock()
	b.signal()
	return true
}

// signal wakes the goroutine.
func (b *inbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take returns the queue and puts spare, emptied, in its place.
func (b *inbox) take(spare []message) []message {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := b.queue
	b.queue = spare[:0]
	return q
}

// close refuses further messages and returns those that were not read.
func (b *inbox) close() []message {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	q := b.queue
	b.queue = nil
	return q
}
