package netactor

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// isShortage reports whether err says that something runs short which may come free any time: descriptors,
// or the kernel's memory.
func isShortage(err error) bool {
	for _, e := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

const (
	firstRetry = 20 * time.Millisecond
	maxRetry   = time.Second
	maxTries   = 14 // of what is waited for: some 10 s
)

// backoff is the pause before a try, after so many.
func backoff(tries int) time.Duration { return min(firstRetry<<min(tries, 10), maxRetry) }

// retryLater has an effect that failed done once more after a while, if the master is short of what
// it takes. patient says for how many tries; 0 is without end.
func (t *Table) retryLater(e effect, err error, patient int) bool {
	if !isShortage(err) || patient > 0 && e.tries >= patient {
		return false
	}
	t.shortage.begin(t.cfg.Logger, "the master is short of what a socket takes: it is tried again", "err", err)
	pause := backoff(e.tries)
	e.tries++
	t.retries++
	time.AfterFunc(pause, func() { // does nothing once the Table is closed
		t.step(func() []effect {
			if t.closed {
				return nil
			}
			return []effect{e}
		})
	})
	return true
}

// reopenable reports whether the master opens the socket of a doOpen itself, and so can do it again.
func (e effect) reopenable() bool { return e.socket == nil && (e.req.FD != 0 || e.req.Network != "") }

// retryEnded ends what again has begun.
func (t *Table) retryEnded() {
	if t.retries == 0 {
		t.shortage.over(t.cfg.Logger, "the master has what sockets take again")
	}
}

// starved is that a process does not get what it is to have, most likely for want of descriptors: handles do not
// arrive, or accept fails.
type starved struct {
	on atomic.Bool // trouble has begun

	mu      sync.Mutex
	trouble trouble
	tries   int
}

// lost takes note that something did not come, and returns when to try again.
func (s *starved) lost(begin func(*trouble)) (pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on.Store(true)
	begin(&s.trouble)
	pause = backoff(s.tries)
	s.tries++
	return pause
}

// arrived takes note that something did. It costs next to nothing.
func (s *starved) arrived(over func(*trouble)) {
	if !s.on.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on.Store(false)
	over(&s.trouble)
	s.tries = 0
}

const (
	handlesLost    = "out of descriptors: what other processes hand over goes back to them"
	handlesArrived = "descriptors are there again"
)

// HandlesLost takes a frame whose handles did not arrive, for fdipc.Config.NoFiles of the master's
// channel and of the link. It is false for a kind that is not handled here.
func (ls *Listeners) HandlesLost(c *fdipc.Conn, f *fdipc.Frame) bool {
	pause := ls.starved.lost(func(t *trouble) { t.begin(ls.cfg.Logger, handlesLost) })
	switch f.Kind {
	case KindOffer: // they are back with the listener process, which leaves us alone for a while
	case KindReply:
		if c == ls.cfg.Master {
			ls.replyFrame(f, true)
		}
	case KindOpen:
		if c == ls.cfg.Master {
			ask := &fdipc.Frame{Kind: KindBroken, Target: f.Target}
			time.AfterFunc(pause, func() { ls.send(c, ask) }) // and gets it anew; nothing happens once c has ended
		}
	default:
		return false
	}
	return true
}

// HandlesLost takes a frame whose handles did not arrive, for fdipc.Config.NoFiles of the master's
// channel. It is false for a kind that is not handled here.
func (d *Dispatcher) HandlesLost(c *fdipc.Conn, f *fdipc.Frame) bool {
	if f.Kind != KindOpen {
		return f.Kind == KindCounters // without it a worker's ends are known by its frames
	}
	pause := d.starved.lost(func(t *trouble) { t.begin(d.cfg.Logger, handlesLost) })
	ask := &fdipc.Frame{Kind: KindBroken, Target: f.Target}
	time.AfterFunc(pause, func() { _ = c.TrySend(ask) }) // and gets it anew; nothing happens once c has ended
	return true
}

// HandlesLost takes a frame of a worker's whose handles did not arrive, for fdipc.Config.NoFiles. It is false
// for a kind that is not handled here.
func (t *Table) HandlesLost(from Worker, f *fdipc.Frame) bool {
	if f.Kind != KindShare {
		return false
	}
	p := pendingRequest{worker: from.ID, seq: f.Target}
	t.step(func() []effect {
		return []effect{{kind: doReply, request: p, reply: reply{Errno: int(syscall.EMFILE), Call: "recvmsg"}}}
	})
	return true
}
