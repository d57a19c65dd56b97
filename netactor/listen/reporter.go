package listen

import (
	"context"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/internal/shm"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// reporter counts a worker's connections of one dispatched listener, for the listener process:
// LeastLoaded and the limits need the number of ended connections. It outlives the worker's
// listener, as connections do, so that the count goes on when the worker listens again.
//
// It reports a total since it joined the link, so that the next report makes up for a lost one.
type reporter struct {
	number uint64

	mu       sync.Mutex
	link     *fdipc.Conn         // the link that it joined last; nil before
	open     int                 // connections that the dispatcher at link counts
	finished uint64              // of open, the connections closed since it joined
	counters *shm.SharedCounters // of link: the same counts, in memory that the listener process reads
	off      bool                // the listener process at link reads counters and needs no reports
	reported uint64
	timer    *time.Timer // sends the next report
	pending  bool

	once   sync.Once
	joined chan struct{} // closed when a dispatcher has answered a join
}

// inRotation handles the message that a dispatcher offers connections here.
func (r *reporter) inRotation() { r.once.Do(func() { close(r.joined) }) }

const (
	reportEvery = 64               // ended connections that are reported at once
	reportAfter = time.Millisecond // how long fewer of them may wait
)

// join joins the rotation of the listener by link. At a new link, it also reports the connections
// that are open now.
func (r *reporter) join(link *fdipc.Conn) {
	r.mu.Lock()
	var h *fdipc.Handle
	if r.link != link {
		r.link, r.finished, r.reported, r.counters, r.off = link, 0, 0, nil, false
		if c, memfd, err := shm.NewSharedCounters(); err == nil {
			r.counters, h = c, memfd
		}
	}
	// Under the lock, so that no report of an end overtakes it; TrySend does not wait.
	_ = link.TrySend(&fdipc.Frame{Kind: wire.KindJoin, Target: r.number, Payload: wire.Count(uint64(r.open))})
	r.mu.Unlock()
	if h != nil {
		// The link owns this goroutine: it ends after the handshake, before which no descriptor can
		// travel, or with the link.
		go func() {
			if link.Send(context.Background(), &fdipc.Frame{Kind: wire.KindCounters, Target: r.number, Handles: []*fdipc.Handle{h}}) != nil {
				_ = h.Close()
			}
		}()
	}
}

// claimed counts a connection that came over via. accepted is the time of its accept; 0 if unknown.
// claimed returns false for a connection that came over an earlier link: the dispatcher at the
// present link does not know it.
func (r *reporter) claimed(via *fdipc.Conn, accepted int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.link != via {
		return false
	}
	r.open++
	if accepted != 0 {
		r.counters.CountClaimed(time.Duration(shm.Monotonic() - accepted))
	}
	return true
}

// closed counts the end of a connection that claimed has counted.
func (r *reporter) closed() {
	r.mu.Lock()
	r.open--
	r.finished++
	r.counters.CountClosed()
	switch {
	case r.off:
	case r.finished-r.reported >= reportEvery:
		r.sendLocked()
	case !r.pending && r.timer == nil:
		r.timer = time.AfterFunc(reportAfter, r.send)
		r.pending = true
	case !r.pending:
		r.timer.Reset(reportAfter)
		r.pending = true
	}
	r.mu.Unlock()
}

// turnOff handles the message that the listener process at link needs no reports.
func (r *reporter) turnOff(link *fdipc.Conn) {
	r.mu.Lock()
	r.off = r.link == link
	r.mu.Unlock()
}

func (r *reporter) send() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pending = false
	if r.finished != r.reported && !r.off {
		r.sendLocked()
	}
}

// sendLocked sends under the lock, so that totals arrive in order; TrySend does not wait.
func (r *reporter) sendLocked() {
	err := r.link.TrySend(&fdipc.Frame{Kind: wire.KindDone, Target: r.number, Payload: wire.Count(r.finished)})
	if err == nil {
		r.reported = r.finished
	}
}
