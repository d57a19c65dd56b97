package socket

import (
	"sync"
	"time"
)

// A Unix socket is a file, and a file system need not answer: that of a server that has
// gone away does not. So whoever works on todo waits for none: it has such a socket opened,
// opened again and its file removed on other goroutines.

// aside does what has to do with files.
var Files = fileWorker{queued: make(map[string][]func())}

// fileWorker have work done on goroutines of their own: in order for each path, so that none of it meets
// what is half done there.
type fileWorker struct {
	mu         sync.Mutex
	queued     map[string][]func() // by path: what comes after that which is being done
	removals   int                 // files that are to be removed
	allRemoved chan struct{}       // closed when there are none; nil if nothing waits for that
}

// do has work called when all is done that was given for the path before.
func (q *fileWorker) Do(path string, work func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if next, busy := q.queued[path]; busy {
		q.queued[path] = append(next, work)
		return
	}
	q.queued[path] = nil
	go q.run(path, work) // ends when the file system answers
}

func (q *fileWorker) run(path string, work func()) {
	for {
		work()
		q.mu.Lock()
		next := q.queued[path]
		if len(next) == 0 {
			delete(q.queued, path)
			q.mu.Unlock()
			return
		}
		work, q.queued[path] = next[0], next[1:]
		q.mu.Unlock()
	}
}

// doRemoval has the file of a socket removed by work.
func (q *fileWorker) doRemoval(path string, work func()) {
	q.mu.Lock()
	q.removals++
	q.mu.Unlock()
	q.Do(path, func() {
		work()
		q.mu.Lock()
		defer q.mu.Unlock()
		if q.removals--; q.removals == 0 && q.allRemoved != nil {
			close(q.allRemoved)
			q.allRemoved = nil
		}
	})
}

const (
	RemovalTimeout = 100 * time.Millisecond // how long a caller waits for the files of what it has closed
	LastTimeout    = time.Second            // and at the end
)

// waitRemoved waits until no file is to be removed any more, or d is over.
func (q *fileWorker) WaitRemoved(d time.Duration) {
	q.mu.Lock()
	if q.removals == 0 {
		q.mu.Unlock()
		return
	}
	if q.allRemoved == nil {
		q.allRemoved = make(chan struct{})
	}
	none := q.allRemoved
	q.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-none:
	case <-timer.C:
	}
}

// waitingFor is how much work waits behind what is being done for a path.
func (q *fileWorker) WaitingFor(path string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.queued[path])
}
