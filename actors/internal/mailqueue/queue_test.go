package mailqueue

import (
	"sync"
	"testing"
)

// Many push and drop under the lock, one takes without it: each message comes
// out once, and what one sender pushed in its order.
func TestQueueGivesEachMessageOnce(t *testing.T) {
	const senders, each = 4, 20000
	var mu sync.Mutex
	var q MessageQueue
	var dropped []any
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for n := range each {
				mu.Lock()
				q.Push([2]int{s, n})
				if n%7 == 0 {
					if v, ok := q.Pop(); ok {
						dropped = append(dropped, v)
					}
				}
				mu.Unlock()
			}
		})
	}
	pushed := make(chan struct{})
	go func() { wg.Wait(); close(pushed) }()
	var cur *Chunk
	var seen uint32
	count := 0
	var last [senders]int
	for s := range last {
		last[s] = -1
	}
	for done := false; ; {
		if cur != nil {
			if v, ok := cur.Take(&seen); ok {
				m := v.([2]int)
				if m[1] <= last[m[0]] {
					t.Fatalf("message %d of sender %d after %d", m[1], m[0], last[m[0]])
				}
				last[m[0]] = m[1]
				count++
				continue
			}
		}
		select {
		case <-pushed:
			done = true
		default:
		}
		mu.Lock()
		cur, seen = q.Advance(cur), 0
		n := q.Len()
		mu.Unlock()
		if cur == nil && done && n == 0 {
			break
		}
	}
	if count+len(dropped) != senders*each {
		t.Fatalf("%d taken and %d dropped of %d", count, len(dropped), senders*each)
	}
	if q.Len() != 0 || q.first != nil || q.last != nil || q.Age() != 0 {
		t.Fatalf("left: %+v", q)
	}
}

// The clock is read for each stretch of the chunk that the actor takes from, and once for one that
// waits behind it.
func TestClockIsReadOncePerWaitingChunk(t *testing.T) {
	var q MessageQueue
	const mark = -1
	for n := range 2 * chunkLen {
		q.Push(n)
		if n%chunkLen == 0 {
			q.last.came[0].Store(mark)
		}
	}
	for i := 1; i < chunkLen/stampLen; i++ {
		if q.first.came[i].Load() == mark || q.last.came[i].Load() != mark {
			t.Errorf("stretch %d: %d, and %d in the chunk behind", i, q.first.came[i].Load(), q.last.came[i].Load())
		}
	}
}
