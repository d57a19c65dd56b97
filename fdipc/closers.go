package fdipc

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// closers close descriptors on goroutines of their own. What a descriptor is, or is made to be by another process that
// has it too, decides whether its close waits, and for how long: for a file system that the peer runs (FUSE), for a
// connection that lingers, for what is queued in a Unix socket and is closed with it. So nothing else waits with
// it: no reader, no lock, no thread that the scheduler counts on. One goroutine closes all, several at one stroke.
// While it does not get on for stuckAfter another takes its place, up to most; what comes then stays open and waits.
//
// init must be called first.
type closePool struct {
	limit    int         // goroutines
	onExcess func(error) // told that the peer is to be cut off; nil: there is none
	kernel   func(xs []closeJob, patient bool)

	stuckAfter, patience time.Duration // the constants below; tests are quicker

	mu         sync.Mutex
	waiting    []closeJob
	empty      []closeJob // the beginning of waiting, to be filled anew
	running    int
	progressAt time.Time     // when one of them went on last
	timer      *time.Timer   // calls look
	watched    bool          // it will
	room       chan struct{} // closed when waiting is short again; nil if nothing waits for that
}

// toClose is a descriptor, or the Go value around it, that is to be closed.
type closeJob struct {
	fd  int32
	tcp bool      // fd is known to be of TCP
	v   io.Closer // nil: fd is bare
	t   *table    // what is to be told when it is closed: that at was released; nil if nothing is
	at  offerID
}

const (
	maxClosers      = 8   // goroutines for one peer, each a thread if what it closes waits
	maxLocalClosers = 256 // for what has no peer
	maxToClose      = 256 // descriptors of one peer that wait; its reader waits with those beyond
	stuckAfter      = 50 * time.Millisecond
	// A peer whose descriptors have held up all of the goroutines for so long, while more wait, is cut off.
	closePatience = 2 * time.Second
)

// strays close what came from no peer.
var localCloser = newLocalCloser()

func newLocalCloser() *closePool {
	cs := new(closePool)
	cs.init(maxLocalClosers, nil)
	return cs
}

func (cs *closePool) init(most int, excess func(error)) {
	cs.limit, cs.onExcess, cs.kernel = most, excess, closeAll
	cs.stuckAfter, cs.patience = stuckAfter, closePatience
	cs.timer = time.AfterFunc(time.Hour, cs.check)
	cs.timer.Stop()
}

// close closes fd, as soon as it can.
func (cs *closePool) close(fd int) { cs.add(closeJob{fd: int32(fd)}) }

// add closes xs, as soon as it can. It takes ownership of what is in them.
func (cs *closePool) add(xs ...closeJob) {
	if len(xs) == 0 {
		return
	}
	cs.mu.Lock()
	cs.enqueueLocked(xs)
	if cs.running == 0 {
		cs.startLocked()
	} else {
		cs.watchLocked(cs.stuckAfter)
	}
	cs.mu.Unlock()
}

// later is add for what need not be closed before others have come together, or a tick is over: it costs less.
func (cs *closePool) addLazily(xs ...closeJob) {
	if len(xs) == 0 {
		return
	}
	cs.mu.Lock()
	cs.enqueueLocked(xs)
	switch {
	case cs.running > 0:
		cs.watchLocked(cs.stuckAfter)
	case len(cs.waiting) >= maxToClose:
		cs.startLocked()
	default:
		cs.watchLocked(tick)
	}
	cs.mu.Unlock()
}

func (cs *closePool) enqueueLocked(xs []closeJob) {
	fresh := len(cs.waiting) == 0
	cs.waiting = append(cs.waiting, xs...)
	if fresh {
		cs.empty = cs.waiting[:0]
	}
}

func (cs *closePool) startLocked() {
	cs.running++
	cs.progressAt = time.Now()
	go cs.run(cs.running > 1) // ends when nothing waits and what is behind the descriptors has let it
}

// watchLocked has look called in d, unless it will be anyway.
func (cs *closePool) watchLocked(d time.Duration) {
	if !cs.watched {
		cs.watched = true
		cs.timer.Reset(d)
	}
}

// look begins with what waits, or helps those that do not get on with it.
func (cs *closePool) check() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.watched = false
	if len(cs.waiting) == 0 {
		return
	}
	switch stuck := time.Since(cs.progressAt); {
	case cs.running == 0, cs.running < cs.limit && stuck >= cs.stuckAfter:
		cs.startLocked()
	case cs.running == cs.limit && stuck >= cs.patience && cs.onExcess != nil:
		go cs.onExcess(fmt.Errorf("%w: the close of %d of its descriptors does not end, and %d more wait", ErrExcess, cs.running, len(cs.waiting)))
		return
	}
	cs.watchLocked(cs.stuckAfter)
}

// run closes what waits, in groups. One that is patient does so one by one, so that it holds nothing else up.
func (cs *closePool) run(patient bool) {
	var now []closeJob
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for len(cs.waiting) > 0 {
		n := 1
		if !patient {
			n = cs.groupLocked()
		}
		now = append(now[:0], cs.waiting[:n]...)
		clear(cs.waiting[:n])
		if cs.waiting = cs.waiting[n:]; len(cs.waiting) == 0 {
			cs.waiting = cs.empty
		}
		cs.roomLocked()
		cs.progressAt = time.Now()
		cs.mu.Unlock()
		cs.kernel(now, patient)
		for i := range now {
			now[i].markReleased()
		}
		cs.mu.Lock()
		patient = patient || cs.running > 1
	}
	if cs.running--; cs.running == 0 {
		cs.watched = false // for that was longer than later can wait
	}
}

// groupLocked returns how many of what waits are closed at one stroke: all that are of TCP, or neighbours, which may
// hold up each other, but not another peer's.
func (cs *closePool) groupLocked() int {
	xs := cs.waiting
	n := 1
	for n < len(xs) && xs[n].tcp == xs[0].tcp && (xs[0].tcp || cs.onExcess != nil && xs[n].v == nil && (xs[n].fd == xs[n-1].fd+1 || xs[n].fd == xs[n-1].fd-1)) {
		n++
	}
	return n
}

func (x *closeJob) close() {
	if x.v != nil {
		x.v.Close()
	} else {
		closeFD(int(x.fd))
	}
}

// released says in the table that the sender's copy is closed, unless the slot is in use for the next already.
func (x *closeJob) markReleased() {
	if x.t != nil {
		x.t.swap(x.at.slot, word(x.at.seq, 0, wordClaimed), word(x.at.seq, 0, wordReleased))
	}
}

func (cs *closePool) roomLocked() {
	if cs.room != nil && len(cs.waiting) <= maxToClose {
		close(cs.room)
		cs.room = nil
	}
}

// throttle waits while more than maxToClose wait, until over.
func (cs *closePool) throttle(over <-chan struct{}) {
	for {
		cs.mu.Lock()
		if len(cs.waiting) <= maxToClose {
			cs.mu.Unlock()
			return
		}
		if cs.room == nil {
			cs.room = make(chan struct{})
		}
		room := cs.room
		cs.mu.Unlock()
		select {
		case <-room:
		case <-over:
			return
		}
	}
}
