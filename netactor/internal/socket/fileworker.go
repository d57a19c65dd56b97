package socket

import (
	"sync"
	"time"
)

// A Unix socket has a file, and a file system may not answer, for example after its server has gone
// away. So the goroutine that works on registry.Table's todo does not wait for files: other
// goroutines open and reopen Unix sockets and remove their files.

// Files does the work on the files of Unix sockets.
var Files = fileWorker{queued: make(map[string][]func())}

// fileWorker calls functions on other goroutines, for each path one after another, so that none of
// them finds half-done work of another.
type fileWorker struct {
	mu         sync.Mutex
	queued     map[string][]func() // by path: work that waits for the work in progress
	removals   int                 // files that are being removed, or wait for it
	allRemoved chan struct{}       // closed when removals is 0; nil if no caller waits for that
}

// Do calls work on another goroutine, after all earlier work for the path.
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

// doRemoval calls work, which removes the file of a socket, as Do does.
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
	RemovalTimeout = 100 * time.Millisecond // how long a caller waits until the files of the sockets that it closed are removed
	LastTimeout    = time.Second            // the same, at the end
)

// WaitRemoved waits until all files are removed, or d is over.
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
	select {
	case <-none:
	case <-time.After(d):
	}
}

// WaitingFor returns how much work waits for the work in progress at a path.
func (q *fileWorker) WaitingFor(path string) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.queued[path])
}
