// Package closer closes descriptors on goroutines of their own, so that nothing else waits with
// them.
package closer

import (
	"io"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
)

// Closer closes descriptors. What a descriptor is, or is made to be by another process that has it
// too, decides whether its close waits, and for how long: for a file system that the peer runs
// (FUSE), for a connection that lingers, for what is queued in a Unix socket and is closed with it.
// So nothing else waits with it: no reader, no lock, no thread that the scheduler counts on. One
// goroutine closes all, several at one stroke. While it does not get on for stuckAfter another
// takes its place, up to the limit; what comes then stays open and waits.
//
// Init must be called first. The methods may be called concurrently.
type Closer struct {
	limit    int                        // goroutines
	onExcess func(running, waiting int) // the peer is to be cut off; nil: there is none
	kernel   func(xs []Item, patient bool)

	stuckAfter, patience time.Duration // the constants below; tests are quicker

	mu         sync.Mutex
	waiting    []Item
	empty      []Item // the beginning of waiting, to be filled anew
	running    int
	progressAt time.Time     // when one of the goroutines went on last
	timer      *time.Timer   // calls check
	watched    bool          // the timer is set
	room       chan struct{} // closed when waiting is short again; nil if nothing waits for that
}

// Item is a descriptor, or the Go value around it, that is to be closed.
type Item struct {
	FD    int32
	TCP   bool         // FD is known to be of TCP
	V     io.Closer    // nil: FD is bare
	Place claims.Place // released once the descriptor is closed; the zero value: none
}

const (
	limit      = 8   // goroutines for one peer, each a thread if what it closes waits
	localLimit = 256 // for what has no peer
	maxWaiting = 256 // descriptors of one peer that wait; its reader waits with those beyond
	stuckAfter = 50 * time.Millisecond
	lazyAfter  = 5 * time.Millisecond // how long AddLazily may wait for others
	// A peer whose descriptors have held up all of the goroutines for so long, while more wait, is
	// cut off.
	patience = 2 * time.Second
)

// Local closes what came from no peer.
var Local = newLocal()

func newLocal() *Closer {
	p := new(Closer)
	p.init(localLimit, nil)
	return p
}

// Init makes p the Closer of what came from one peer. onExcess is called, on a goroutine of its
// own, when the peer is to be cut off: the closes of so many descriptors do not end, and so many
// more wait.
func (p *Closer) Init(onExcess func(running, waiting int)) { p.init(limit, onExcess) }

func (p *Closer) init(limit int, onExcess func(running, waiting int)) {
	p.limit, p.onExcess, p.kernel = limit, onExcess, closeAll
	p.stuckAfter, p.patience = stuckAfter, patience
	p.timer = time.AfterFunc(time.Hour, p.check)
	p.timer.Stop()
}

// Close closes fd, as soon as it can. It takes ownership of it.
func (p *Closer) Close(fd int) { p.Add(Item{FD: int32(fd)}) }

// Add closes xs, as soon as it can. It takes ownership of what is in them.
func (p *Closer) Add(xs ...Item) {
	if len(xs) == 0 {
		return
	}
	p.mu.Lock()
	p.enqueueLocked(xs)
	if p.running == 0 {
		p.startLocked()
	} else {
		p.watchLocked(p.stuckAfter)
	}
	p.mu.Unlock()
}

// AddLazily is Add for what need not be closed before others have come together, or 5 ms are over:
// it costs less.
func (p *Closer) AddLazily(xs ...Item) {
	if len(xs) == 0 {
		return
	}
	p.mu.Lock()
	p.enqueueLocked(xs)
	switch {
	case p.running > 0:
		p.watchLocked(p.stuckAfter)
	case len(p.waiting) >= maxWaiting:
		p.startLocked()
	default:
		p.watchLocked(lazyAfter)
	}
	p.mu.Unlock()
}

func (p *Closer) enqueueLocked(xs []Item) {
	fresh := len(p.waiting) == 0
	p.waiting = append(p.waiting, xs...)
	if fresh {
		p.empty = p.waiting[:0]
	}
}

func (p *Closer) startLocked() {
	p.running++
	p.progressAt = time.Now()
	go p.run(p.running > 1) // ends when nothing waits and what is behind the descriptors has let it
}

// watchLocked has check called in d, unless the timer is set already.
func (p *Closer) watchLocked(d time.Duration) {
	if !p.watched {
		p.watched = true
		p.timer.Reset(d)
	}
}

// check starts a goroutine for what waits, or a further one if those that run do not get on.
func (p *Closer) check() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watched = false
	if len(p.waiting) == 0 {
		return
	}
	switch stuck := time.Since(p.progressAt); {
	case p.running == 0, p.running < p.limit && stuck >= p.stuckAfter:
		p.startLocked()
	case p.running == p.limit && stuck >= p.patience && p.onExcess != nil:
		go p.onExcess(p.running, len(p.waiting))
		return
	}
	p.watchLocked(p.stuckAfter)
}

// run closes what waits, in groups. A patient one closes one by one, so that it holds nothing else
// up.
func (p *Closer) run(patient bool) {
	var now []Item
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.waiting) > 0 {
		n := 1
		if !patient {
			n = p.groupLocked()
		}
		now = append(now[:0], p.waiting[:n]...)
		clear(p.waiting[:n])
		if p.waiting = p.waiting[n:]; len(p.waiting) == 0 {
			p.waiting = p.empty
		}
		p.roomLocked()
		p.progressAt = time.Now()
		p.mu.Unlock()
		p.kernel(now, patient)
		for i := range now {
			now[i].Place.Release()
		}
		p.mu.Lock()
		patient = patient || p.running > 1
	}
	if p.running--; p.running == 0 {
		p.watched = false // for that was longer than AddLazily can wait
	}
}

// groupLocked returns how many of what waits are closed at one stroke: all that are of TCP, or
// neighbours, which may hold up each other, but not another peer's.
func (p *Closer) groupLocked() int {
	xs := p.waiting
	n := 1
	for n < len(xs) && xs[n].TCP == xs[0].TCP && (xs[0].TCP || p.onExcess != nil && neighbours(&xs[n-1], &xs[n])) {
		n++
	}
	return n
}

func neighbours(a, b *Item) bool { return b.V == nil && (b.FD == a.FD+1 || b.FD == a.FD-1) }

// Close closes x now. It may wait. It does not release the claim.
func (x *Item) Close() {
	if x.V != nil {
		x.V.Close()
	} else {
		FD(int(x.FD))
	}
}

func (p *Closer) roomLocked() {
	if p.room != nil && len(p.waiting) <= maxWaiting {
		close(p.room)
		p.room = nil
	}
}

// Throttle waits while too many descriptors wait to be closed, until over is closed.
func (p *Closer) Throttle(over <-chan struct{}) {
	for {
		p.mu.Lock()
		if len(p.waiting) <= maxWaiting {
			p.mu.Unlock()
			return
		}
		if p.room == nil {
			p.room = make(chan struct{})
		}
		room := p.room
		p.mu.Unlock()
		select {
		case <-room:
		case <-over:
			return
		}
	}
}
