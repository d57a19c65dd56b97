// Package mailqueue has the queue of an actor's mailbox.
package mailqueue

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	chunkLen = 64
	stampLen = 16 // messages that share a time of arrival, where no chunk waits before theirs
)

// Chunk is a piece of a queue. A slot is written once, under the queue's lock, before n says so;
// the goroutine that moves taken past it owns it.
type Chunk struct {
	next  *Chunk // guarded by the lock
	n     atomic.Uint32
	came  [chunkLen / stampLen]atomic.Int64 // since epoch, of the first message of each stretch
	items [chunkLen]any
	taken atomic.Uint32 // far from n: different cores write them
}

var (
	chunks = sync.Pool{New: func() any { return new(Chunk) }}
	epoch  = time.Now()
)

// CacheLine keeps its neighbours apart.
type CacheLine [64]byte

// Take takes the oldest message in the chunk. seen is how many the caller knows to be in it.
func (c *Chunk) Take(seen *uint32) (v any, ok bool) {
	for {
		i := c.taken.Load()
		if i >= *seen {
			if *seen = c.n.Load(); i >= *seen {
				return nil, false
			}
		}
		if c.taken.CompareAndSwap(i, i+1) {
			v, c.items[i] = c.items[i], nil
			return v, true
		}
	}
}

// MessageQueue holds an actor's user messages. Many push under the lock of the mailbox; one
// goroutine, the actor's, takes without it. It is made of chunks, so that neither a burst nor its
// end copies anything, and that an idle actor has none.
type MessageQueue struct {
	first   *Chunk // the oldest with something in it, perhaps; nil: nothing was pushed
	last    *Chunk
	written uint64 // pushed to all chunks that ever were
	retired uint64 // taken from chunks that are no longer here
}

// Len returns how many messages wait. The lock is held.
func (q *MessageQueue) Len() int {
	n := q.written - q.retired
	if q.first != nil {
		n -= uint64(q.first.taken.Load())
	}
	return int(n)
}

// Taken returns how many messages were taken, by Pop too. The lock is held.
func (q *MessageQueue) Taken() uint64 { return q.written - uint64(q.Len()) }

// Push appends v. The lock is held.
func (q *MessageQueue) Push(v any) {
	c := q.last
	if c == nil || c.n.Load() == chunkLen {
		c = chunks.Get().(*Chunk)
		if q.last == nil {
			q.first = c
		} else {
			q.last.next = c
		}
		q.last = c
	}
	n := c.n.Load()
	switch {
	case n%stampLen > 0:
	case n == 0 || q.first == c:
		c.came[n/stampLen].Store(int64(time.Since(epoch)))
	default: // a chunk waits before this one: the clock costs more than it tells
		c.came[n/stampLen].Store(c.came[0].Load())
	}
	c.items[n] = v
	c.n.Store(n + 1)
	q.written++
}

// Pop takes the oldest message. The lock is held.
func (q *MessageQueue) Pop() (v any, ok bool) {
	for q.first != nil {
		var seen uint32
		if v, ok = q.first.Take(&seen); ok {
			return v, true
		}
		if q.first.n.Load() < chunkLen {
			return nil, false
		}
		q.retire()
	}
	return nil, false
}

// retire unlinks the first chunk, of which everything is taken. The actor's goroutine may still
// have it. The lock is held.
func (q *MessageQueue) retire() {
	c := q.first
	q.retired += uint64(c.n.Load())
	if q.first = c.next; q.first == nil {
		q.last = nil
	}
}

// Advance gives the actor's goroutine, which alone may call it, the chunk to take from after its
// last one, cur. Nil: nothing is queued. The lock is held.
func (q *MessageQueue) Advance(cur *Chunk) *Chunk {
	for c := q.first; c != nil; c = q.first {
		if c.taken.Load() < c.n.Load() {
			break
		}
		q.retire()
		if c != cur {
			recycle(c)
		}
	}
	if cur != nil && cur != q.first {
		recycle(cur)
	}
	return q.first
}

// recycle gives back a chunk that no goroutine uses.
func recycle(c *Chunk) {
	c.next = nil
	c.n.Store(0)
	c.taken.Store(0)
	chunks.Put(c)
}

// Each calls f with each message that waits, oldest first. The lock is held, and the actor's
// goroutine takes none.
func (q *MessageQueue) Each(f func(v any)) {
	for c := q.first; c != nil; c = c.next {
		for i := c.taken.Load(); i < c.n.Load(); i++ {
			f(c.items[i])
		}
	}
}

// Age returns how long the oldest message has waited, give or take a stretch. The lock is held.
func (q *MessageQueue) Age() time.Duration {
	for c := q.first; c != nil; c = c.next {
		if i := c.taken.Load(); i < c.n.Load() {
			return time.Since(epoch) - time.Duration(c.came[i/stampLen].Load())
		}
	}
	return 0
}
