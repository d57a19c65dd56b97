package actors

import (
	"sync"
	"testing"
)

// Many push and drop under the lock, one takes without it: each message comes
// out once, and what one sender pushed in its order.
func TestQueueGivesEachMessageOnce(t *testing.T) {
	const senders, each = 4, 20000
	var mu sync.Mutex
	var q messageQueue
	var dropped []any
	var wg sync.WaitGroup
	for s := range senders {
		wg.Go(func() {
			for n := range each {
				mu.Lock()
				q.push([2]int{s, n})
				if n%7 == 0 {
					if v, ok := q.pop(); ok {
						dropped = append(dropped, v)
					}
				}
				mu.Unlock()
			}
		})
	}
	pushed := make(chan struct{})
	go func() { wg.Wait(); close(pushed) }()
	var cur *chunk
	var seen uint32
	count := 0
	var last [senders]int
	for s := range last {
		last[s] = -1
	}
	for done := false; ; {
		if cur != nil {
			if v, ok := cur.take(&seen); ok {
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
		cur, seen = q.advance(cur), 0
		n := q.len()
		mu.Unlock()
		if cur == nil && done && n == 0 {
			break
		}
	}
	if count+len(dropped) != senders*each {
		t.Fatalf("%d taken and %d dropped of %d", count, len(dropped), senders*each)
	}
	if q.len() != 0 || q.first != nil || q.last != nil || q.age() != 0 {
		t.Fatalf("left: %+v", q)
	}
}
