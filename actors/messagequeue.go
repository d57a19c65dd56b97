package actors

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	chunkLen = 64
	stampLen = 16 // messages that share a time of arrival
)

// chunk is a piece of a queue. A slot is written once, under the queue's lock,
// before n says so; who moves taken past it owns it.
type chunk struct {
	next  *chunk // guarded by the lock
	n     atomic.Uint32
	came  [chunkLen / stampLen]atomic.Int64 // since epoch, of the first message of each stretch
	items [chunkLen]any
	taken atomic.Uint32 // far from n: different cores write them
}

var (
	chunks = sync.Pool{New: func() any { return new(chunk) }}
	epoch  = time.Now()
)

// cacheLine keeps its neighbours apart.
type cacheLine [64]byte

// take takes the oldest message in the chunk. seen is how many the caller knows
// to be in it.
func (c *chunk) take(seen *uint32) (v any, ok bool) {
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

// messageQueue holds an actor's user messages. Many push under the lock of the mailbox;
// one goroutine, the actor's, takes without it. It is made of chunks, so that
// neither a burst nor its end copies anything, and that an idle actor has none.
type messageQueue struct {
	first   *chunk // the oldest with something in it, perhaps; nil: nothing was pushed
	last    *chunk
	written uint64 // pushed to all chunks that ever were
	retired uint64 // taken from chunks that are no longer here
}

// len returns how many messages wait. The lock is held.
func (q *messageQueue) len() int {
	n := q.written - q.retired
	if q.first != nil {
		n -= uint64(q.first.taken.Load())
	}
	return int(n)
}

// push appends v. The lock is held.
func (q *messageQueue) push(v any) {
	c := q.last
	if c == nil || c.n.Load() == chunkLen {
		c = chunks.Get().(*chunk)
		if q.last == nil {
			q.first = c
		} else {
			q.last.next = c
		}
		q.last = c
	}
	n := c.n.Load()
	if n%stampLen == 0 {
		c.came[n/stampLen].Store(int64(time.Since(epoch)))
	}
	c.items[n] = v
	c.n.Store(n + 1)
	q.written++
}

// pop takes the oldest message. The lock is held.
func (q *messageQueue) pop() (v any, ok bool) {
	for q.first != nil {
		var seen uint32
		if v, ok = q.first.take(&seen); ok {
			return v, true
		}
		if q.first.n.Load() < chunkLen {
			return nil, false
		}
		q.retire()
	}
	return nil, false
}

// retire unlinks the first chunk, of which everything is taken. The actor's
// goroutine may still have it. The lock is held.
func (q *messageQueue) retire() {
	c := q.first
	q.retired += uint64(c.n.Load())
	if q.first = c.next; q.first == nil {
		q.last = nil
	}
}

// advance gives the actor's goroutine, which alone may call it, the chunk to
// take from after its last one, cur. Nil: nothing is queued. The lock is held.
func (q *messageQueue) advance(cur *chunk) *chunk {
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

// recycle gives back a chunk that nobody else has.
func recycle(c *chunk) {
	c.next = nil
	c.n.Store(0)
	c.taken.Store(0)
	chunks.Put(c)
}

// age returns how long the oldest message has waited, give or take a stretch.
// The lock is held.
func (q *messageQueue) age() time.Duration {
	for c := q.first; c != nil; c = c.next {
		if i := c.taken.Load(); i < c.n.Load() {
			return time.Since(epoch) - time.Duration(c.came[i/stampLen].Load())
		}
	}
	return 0
}
