package netactor

import (
	"context"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// tally counts a worker's connections of one dispatched listener, for the
// listener process: LeastLoaded and the limits need to know what ends. It
// outlives the worker's listener, as connections do, so that the count goes on
// when the worker listens again.
//
// What it reports is a total since it joined the link: a report that is lost is
// made good by the next.
type tally struct {
	number uint64

	mu       sync.Mutex
	link     *fdipc.Conn // that it joined last; nil before
	open     int         // connections that the dispatcher at link counts
	finished uint64      // of those, closed since it joined
	sheet    *sheet      // of link: the same, where the listener process can see it
	quiet    bool        // at link they look there when they want to know
	reported uint64
	timer    *time.Timer // to report
	armed    bool

	once   sync.Once
	joined chan struct{} // closed when a dispatcher has answered a join
}

func newTally(number uint64) *tally {
	return &tally{number: number, joined: make(chan struct{})}
}

// inRotation is told that a dispatcher offers connections here.
func (t *tally) inRotation() { t.once.Do(func() { close(t.joined) }) }

const (
	reportEvery = 64               // ends that are reported at once
	reportAfter = time.Millisecond // how long fewer may wait
)

// join takes part in the listener by link. By a new link, what is open is
// counted there from now on.
func (t *tally) join(link *fdipc.Conn) {
	t.mu.Lock()
	var h *fdipc.Handle
	if t.link != link {
		t.link, t.finished, t.reported, t.sheet, t.quiet = link, 0, 0, nil, false
		if s, sheetHandle, err := newSheet(); err == nil {
			t.sheet, h = s, sheetHandle
		}
	}
	open := uint64(t.open)
	t.mu.Unlock()
	_ = link.TrySend(&fdipc.Frame{Kind: KindJoin, Target: t.number, Payload: count8(open)})
	if h != nil {
		// Owned by the link: it ends when the handshake is over, before which no descriptor
		// can travel, or with the link.
		go func() {
			if link.Send(context.Background(), &fdipc.Frame{Kind: KindSheet, Target: t.number, Handles: []*fdipc.Handle{h}}) != nil {
				_ = h.Close()
			}
		}()
	}
}

// claimed counts a connection that came over via, and was accepted there at the given
// time; 0 is unknown. It is false for one that came
// over an earlier link: the dispatcher at the present one does not know it.
func (t *tally) claimed(via *fdipc.Conn, accepted int64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.link != via {
		return false
	}
	t.open++
	if accepted != 0 {
		t.sheet.claimed(bucket(time.Duration(monotonic() - accepted)))
	}
	return true
}

// closed counts the end of a connection that claimed has counted.
func (t *tally) closed() {
	t.mu.Lock()
	t.open--
	t.finished++
	t.sheet.end()
	switch {
	case t.quiet:
	case t.finished-t.reported >= reportEvery:
		t.reportLocked()
	case !t.armed && t.timer == nil:
		t.timer = time.AfterFunc(reportAfter, t.report)
		t.armed = true
	case !t.armed:
		t.timer.Reset(reportAfter)
		t.armed = true
	}
	t.mu.Unlock()
}

// quieten says that the listener process at link needs no reports.
func (t *tally) quieten(link *fdipc.Conn) {
	t.mu.Lock()
	t.quiet = t.link == link
	t.mu.Unlock()
}

func (t *tally) report() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.armed = false
	if t.finished != t.reported && !t.quiet {
		t.reportLocked()
	}
}

// reportLocked sends under the lock, so that totals arrive in order; TrySend
// does not wait.
func (t *tally) reportLocked() {
	err := t.link.TrySend(&fdipc.Frame{Kind: KindDone, Target: t.number, Payload: count8(t.finished)})
	if err == nil {
		t.reported = t.finished
	}
}
