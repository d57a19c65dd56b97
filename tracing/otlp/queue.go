package otlp

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
)

// queue collects items and sends them in batches, from its goroutine. It is bounded: an item
// that does not fit is dropped and counted.
type queue[T any] struct {
	queueConfig[T]

	mu     sync.Mutex
	items  []T
	size   int // sum of the items' weights
	closed bool

	wake    chan struct{}      // capacity 1: there is an item
	full    chan struct{}      // capacity 1: there is a batch
	flushes chan chan struct{} // each is closed when what was queued before it has been sent
	closing chan struct{}
	done    chan struct{} // closed when the goroutine has ended

	cancel context.CancelFunc // ends the context of every send

	accepted atomic.Uint64 // items given to put
	dropped  atomic.Uint64 // of those: not sent
}

type queueConfig[T any] struct {
	limit  int           // of the sum of weights
	batch  int           // weight at which a batch is sent at once; a batch exceeds it by one item at most
	delay  time.Duration // from the first item to the batch
	weight func(T) int   // of an item

	// send takes ownership of the batch and returns the number of lost items.
	send func(ctx context.Context, batch []T) (lost int, err error)
}

// newQueue starts the goroutine, which ends by close.
func newQueue[T any](cfg queueConfig[T]) *queue[T] {
	q := &queue[T]{
		queueConfig: cfg,
		wake:        make(chan struct{}, 1),
		full:        make(chan struct{}, 1),
		flushes:     make(chan chan struct{}),
		closing:     make(chan struct{}),
		done:        make(chan struct{}),
	}
	ctx, cancel := context.WithCancel(context.Background())
	q.cancel = cancel
	go q.run(ctx) // ends after close, which waits for it
	return q
}

// put queues an item, or drops it and returns false. It never waits.
func (q *queue[T]) put(item T) (queued bool) {
	w := q.weight(item)
	q.accepted.Add(1)
	q.mu.Lock()
	if q.closed || q.size+w > q.limit {
		q.mu.Unlock()
		q.dropped.Add(1)
		return false
	}
	q.items = append(q.items, item)
	q.size += w
	size := q.size
	q.mu.Unlock()

	signal(q.wake)
	if size >= q.batch {
		signal(q.full)
	}
	return true
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// flush waits until all queued items have been sent. The end of ctx ends the wait only.
func (q *queue[T]) flush(ctx context.Context) error {
	reply := make(chan struct{})
	select {
	case q.flushes <- reply:
	case <-q.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-reply:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// close refuses new items, sends what is queued, and waits for the goroutine.
// When ctx ends first, close cancels the current send, drops the rest, returns ctx's error,
// and does not wait for the goroutine, which ends when its send has returned: see done.
func (q *queue[T]) close(ctx context.Context) error {
	q.mu.Lock()
	if !q.closed {
		q.closed = true
		close(q.closing)
	}
	q.mu.Unlock()
	defer q.cancel()
	select {
	case <-q.done:
		return nil
	case <-ctx.Done():
	}
	q.cancel()
	q.mu.Lock()
	rest := len(q.items)
	q.items, q.size = nil, 0
	q.mu.Unlock()
	q.dropped.Add(uint64(rest))
	return ctx.Err()
}

func (q *queue[T]) run(ctx context.Context) {
	defer close(q.done)
	failing := false
	for {
		reply, closing := q.wait()
		for batch := q.take(); batch != nil; batch = q.take() {
			lost, err := q.send(ctx, batch)
			q.dropped.Add(uint64(lost))
			if err != nil && !failing {
				otel.Handle(err)
			}
			failing = err != nil
		}
		if reply != nil {
			close(reply)
		}
		if closing {
			return
		}
	}
}

// wait returns when a batch is due: the delay after the first item, at once when the batch
// is full, for a flush (reply is not nil and is to be closed after it), or at the end.
func (q *queue[T]) wait() (reply chan struct{}, closing bool) {
	select {
	case <-q.wake:
	case reply = <-q.flushes:
		return reply, false
	case <-q.closing:
		return nil, true
	}
	if q.delay == 0 {
		return nil, false
	}
	select {
	case <-time.After(q.delay):
	case <-q.full:
	case reply = <-q.flushes:
		return reply, false
	case <-q.closing:
		return nil, true
	}
	return nil, false
}

// take removes the next batch from the queue; nil when it is empty.
func (q *queue[T]) take() []T {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, size := 0, 0
	for n < len(q.items) && size < q.batch {
		size += q.weight(q.items[n])
		n++
	}
	if n == 0 {
		return nil
	}
	batch := q.items[:n:n]
	if n == len(q.items) {
		q.items = nil
	} else {
		q.items = q.items[n:]
	}
	q.size -= size
	return batch
}
