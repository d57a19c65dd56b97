package coppice

import (
	"sync"
	"time"
)

const (
	// maxOutput is how many bytes of lines wait for Config.Output.
	maxOutput = 1 << 20

	// outputPatience is how long a process's output waits for room. While nothing
	// has been taken for so long the writer is stuck, and nobody waits for it.
	outputPatience = time.Second

	// outputFlush bounds how long the end of the tree waits for the last lines.
	outputFlush = time.Second

	lineCost = 128 // bytes that a line takes up besides its text
)

// outputQueue stands between the processes and Config.Output, which may block. A
// slow writer slows the processes down, by their pipes; a stuck one costs lines,
// which are counted; neither holds up the master.
type outputQueue struct {
	to   LineWriter
	wake chan struct{} // 1: there are lines, or the end
	done chan struct{} // closed when run has returned

	mu     sync.Mutex
	lines  []OutputLine
	bytes  int           // of lines, and of the one being written
	room   chan struct{} // closed and replaced with each line taken
	stuck  bool
	closed bool
	owed   uint64 // lost, and not yet told in the output
	lost   uint64
}

func newOutputQueue(to LineWriter) *outputQueue {
	q := &outputQueue{to: to, wake: make(chan struct{}, 1), done: make(chan struct{}), room: make(chan struct{})}
	go q.run() // ends after close, once the writer lets it
	return q
}

// put hands a line over and tells whether it is kept. It waits for room, at most
// outputPatience.
func (q *outputQueue) put(l OutputLine) bool {
	cost := lineCost + len(l.Text)
	var timeout <-chan time.Time
	for {
		q.mu.Lock()
		if !q.closed && q.bytes+cost <= maxOutput {
			q.noteLocked()
			q.addLocked(l)
			q.mu.Unlock()
			q.nudge()
			return true
		}
		if q.closed || q.stuck {
			q.loseLocked(1)
			q.mu.Unlock()
			return false
		}
		room := q.room
		q.mu.Unlock()
		if timeout == nil {
			timer := time.NewTimer(outputPatience)
			defer timer.Stop()
			timeout = timer.C
		}
		select {
		case <-room:
		case <-timeout:
			q.mu.Lock()
			q.stuck = q.room == room // nothing was taken while this one waited last
			q.loseLocked(1)
			q.mu.Unlock()
			return false
		}
	}
}

func (q *outputQueue) addLocked(l OutputLine) {
	q.lines = append(q.lines, l)
	q.bytes += lineCost + len(l.Text)
}

func (q *outputQueue) loseLocked(n uint64) {
	q.lost += n
	q.owed += n
}

// noteLocked puts in the place of lost lines that they were.
func (q *outputQueue) noteLocked() {
	if q.owed > 0 {
		q.addLocked(lostLines(q.owed, time.Now()))
		q.owed = 0
	}
}

func (q *outputQueue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default: // it is awake
	}
}

// run writes the lines, in the order in which they came.
func (q *outputQueue) run() {
	defer close(q.done)
	for {
		q.mu.Lock()
		closed := q.closed
		if closed {
			q.noteLocked()
		}
		if len(q.lines) == 0 {
			q.mu.Unlock()
			if closed {
				return
			}
			<-q.wake
			continue
		}
		l := q.lines[0]
		q.lines[0] = OutputLine{}
		q.lines = q.lines[1:]
		q.mu.Unlock()

		err := q.to.WriteLine(l)

		q.mu.Lock()
		q.bytes -= lineCost + len(l.Text)
		q.stuck = false
		close(q.room)
		q.room = make(chan struct{})
		if err != nil {
			q.lost++ // to tell it there would fail as well
		}
		q.mu.Unlock()
	}
}

// close ends the queue once what is in it is written, and waits for that, at most
// outputFlush. It returns how many lines were lost in all: those that the writer
// has not taken by then are.
func (q *outputQueue) close() uint64 {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.nudge()
	timer := time.NewTimer(outputFlush)
	defer timer.Stop()
	select {
	case <-q.done:
	case <-timer.C:
		q.mu.Lock()
		q.lost += uint64(len(q.lines)) + 1 // and the one being written
		q.lines = nil
		q.mu.Unlock()
	}
	return q.losses()
}

// losses is how many lines nobody took.
func (q *outputQueue) losses() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.lost
}
