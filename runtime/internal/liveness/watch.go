package liveness

import (
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/canary"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// Answers is what the master has received of a child's heartbeat. The zero value has received
// nothing.
type Answers struct {
	newest    atomic.Uint64          // the newest heartbeat that was answered
	complaint atomic.Pointer[string] // what is wrong, as the child reports; nil if nothing
	at        atomic.Int64           // when the newest answer came, at first when Watch began: Unix time in nanoseconds; 0 = not yet
	requests  atomic.Uint64          // that it had served then
	figures   atomic.Pointer[canary.Figures]
}

// Record records an answer, on the goroutine that reads the channel.
func (a *Answers) Record(f childproto.HeartbeatFrame) {
	if f.Unwell == "" {
		a.complaint.Store(nil)
	} else {
		a.complaint.Store(&f.Unwell)
	}
	a.newest.Store(f.N)
	a.at.Store(time.Now().UnixNano())
	a.requests.Store(f.Requests)
	if f.Figures != nil {
		a.figures.Store(f.Figures)
	}
}

// At returns when the newest answer came; until one has, when Watch began, zero before.
func (a *Answers) At() time.Time {
	if ns := a.at.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// Requests returns how many requests the child had served when its newest answer came.
func (a *Answers) Requests() uint64 { return a.requests.Load() }

// Figures returns what the child had served at the newest answer that says so; nil if none does.
func (a *Answers) Figures() *canary.Figures { return a.figures.Load() }

// Complaint returns what is wrong, as the child reports; "" if nothing is.
func (a *Answers) Complaint() string {
	if s := a.complaint.Load(); s != nil {
		return *s
	}
	return ""
}

// A Subject is what Watch needs from a child.
type Subject struct {
	Answers *Answers
	Ended   <-chan struct{}                       // closed when it has ended
	Stopped func() bool                           // reports whether it was asked to stop
	Ask     func(childproto.HeartbeatFrame) error // sends a question, without waiting for room
	Waited  func() (time.Duration, error)         // for CPUs, so far
	Traced  func() bool                           // reports whether a debugger holds it

	Late      func(silence time.Duration) // half of Config.Timeout is over
	Recovered func()                      // it answers again
}

// Watch asks a child for signs of life until it ends, is asked to stop, or hangs. It returns how
// long a child that hangs was silent; otherwise 0.
func Watch(cfg Config, c Subject) time.Duration {
	ticker := time.NewTicker(cfg.Every)
	defer ticker.Stop()
	c.Answers.at.CompareAndSwap(0, time.Now().UnixNano()) // one that never answers is silent since now
	var (
		sent    uint64 // the newest question that was sent
		silence Silence
		waited  cpuWaits
		last    = time.Now()
	)
	for {
		select {
		case <-c.Ended:
			return 0
		case <-ticker.C:
		}
		if c.Stopped() {
			return 0 // the drain has a separate deadline
		}
		turn := Turn{Elapsed: time.Since(last)}
		last = last.Add(turn.Elapsed)
		// The next question waits for the last answer. Before the first question no answer can be
		// missed.
		if c.Answers.newest.Load() == sent {
			well := c.Answers.complaint.Load() == nil
			if c.Ask(childproto.HeartbeatFrame{N: sent + 1}) == nil {
				sent++
				turn.Answered = well
			} // otherwise it does not even read
		}
		if turn.Answered {
			waited = cpuWaits{}
		} else {
			turn.Starved = waited.most(c.Waited, turn.Elapsed)
		}
		switch silence.Step(cfg, turn) {
		case Fine:
		case Late:
			c.Late(silence.Counted())
		case Recovered:
			c.Recovered()
		case Hung:
			if !c.Traced() {
				return silence.Counted()
			}
			silence = Silence{}
		}
	}
}

// cpuWaits tracks how long a process has waited for CPUs.
type cpuWaits struct {
	known bool
	sum   time.Duration
}

// most reports whether the process waited for most of the elapsed time since the last call. The
// first call returns false.
func (w *cpuWaits) most(waited func() (time.Duration, error), elapsed time.Duration) bool {
	sum, err := waited()
	before := *w
	*w = cpuWaits{err == nil, sum}
	return before.known && w.known && sum-before.sum > elapsed/2
}
