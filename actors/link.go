package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// link is the way to one incarnation of another process: a channel that was
// attached, or a lane of its own.
type link struct {
	s           *System
	address     string
	incarnation uint64        // of a lane: set before opened
	lane        bool          // made and closed by this package
	opened      chan struct{} // closed when conn is there
	done        chan struct{} // closed by close

	latest [2]latest      // by lane of the Conn; each is its reader's
	ended  atomic.Bool    // closed, for readers
	direct [2]atomic.Bool // by lane of the Conn: it is there and nothing waits for it
	asking atomic.Int32   // asks on this link that wait
	taken  int            // asks that came by it and are not answered; guarded by inbound.mu

	mu      sync.Mutex
	conn    Conn
	own     *fdipc.Conn // of a lane: conn, to be closed with the link
	number  uint64      // of a lane
	closed  bool
	why     supervisor.Reason        // of close
	peer    atomic.Pointer[readable] // what the peer can read; nil: all, as far as is known
	backlog [2]backlog               // by lane of the Conn

	// Of a lane that is ending.
	over   bool               // its Conn has ended: all that came was handled
	reason *supervisor.Reason // the master has said why its process ended
	timer  *time.Timer        // ends the wait for the other of the two
}

// backlog is what found no room, or no Conn yet, and must not be lost, in order.
type backlog struct {
	notices  []fdipc.Frame // their payloads are the backlog's
	flushing chan struct{} // closed when the backlog is empty; nil: nobody sends it now
}

// maxBacklog bounds the notices for a process that does not read. They are in the
// number of monitors and asks; a process that leaves so many unread hangs.
const maxBacklog = 1 << 16

func newLink(s *System, address string) *link {
	return &link{s: s, address: address, opened: make(chan struct{}), done: make(chan struct{})}
}

// open gives the link its Conn. What waited for it goes first.
func (l *link) open(c Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.conn != nil {
		return false
	}
	l.conn = c
	l.own, _ = c.(*fdipc.Conn)
	for lane := range l.backlog {
		if len(l.backlog[lane].notices) > 0 {
			l.flushLocked(fdipc.Lane(lane))
		} else {
			l.direct[lane].Store(true)
		}
	}
	close(l.opened)
	return true
}

// lostError wraps the error of a channel that has ended while the process is
// not known to have: its exit reason will come with Detach.
type lostError struct{ err error }

func (e *lostError) Error() string        { return "channel lost: " + e.err.Error() }
func (e *lostError) Unwrap() error        { return e.err }
func (e *lostError) Is(target error) bool { return target == ErrDown }

func isLost(err error) bool {
	var e *lostError
	return errors.As(err, &e)
}

// send takes f, with its payload, to the channel. It waits under ctx; under
// noContext for at most SendWait.
func (l *link) send(ctx context.Context, f *fdipc.Frame) error {
	if !l.direct[f.Lane].Load() {
		return l.sendInTurn(ctx, f, false)
	}
	// What the caller posted before went this way too.
	err := l.conn.TrySend(f)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fdipc.ErrFull):
		return l.sendInTurn(ctx, f, true)
	}
	return l.verdict(err)
}

// sendInTurn sends f after the notices that wait, and waits for room. full says that
// there was none just now.
func (l *link) sendInTurn(ctx context.Context, f *fdipc.Frame, full bool) error {
	var cancel context.CancelFunc
	for first := !full; ; first = false {
		// The caller has noted what waits for this process. If it is detached before
		// this look we see it here, if after it, detach sees the note.
		l.mu.Lock()
		closed, conn, wait := l.closed, l.conn, l.backlog[f.Lane].flushing
		l.mu.Unlock()
		if closed {
			return l.verdict(fdipc.ErrClosed)
		}
		if conn == nil {
			wait = l.opened
		}
		if wait == nil && first {
			if err := conn.TrySend(f); !errors.Is(err, fdipc.ErrFull) {
				return l.verdict(err)
			}
		}
		if cancel == nil {
			if ctx == noContext {
				ctx, cancel = context.WithTimeoutCause(context.Background(), l.s.cfg.SendWait, ErrBusy)
			} else {
				ctx, cancel = context.WithCancel(ctx)
			}
			defer cancel()
		}
		if wait == nil {
			err := conn.Send(ctx, f)
			if err != nil && ctx.Err() != nil && !l.isClosed() {
				return context.Cause(ctx)
			}
			return l.verdict(err)
		}
		select { // notices go first: a Monitor must not be overtaken by what follows it
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.done:
		}
	}
}

// verdict turns an error of the channel into one of ours.
func (l *link) verdict(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fdipc.ErrTooBig), errors.Is(err, fdipc.ErrTooManyHandles), errors.Is(err, fdipc.ErrHandleKind):
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	case errors.Is(err, fdipc.ErrFull):
		return ErrBusy
	}
	if l.isClosed() {
		return downError(ProcessPID(l.address), l.reasonClosed())
	}
	return &lostError{err}
}

// reasonClosed returns why the link is closed.
func (l *link) reasonClosed() supervisor.Reason {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.why
}

func (l *link) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// post sends a notice, without waiting, in order, and without losing it while
// the process lives. payload appends what follows f's header. Its handles are the
// link's.
func (l *link) post(f fdipc.Frame, payload func([]byte) []byte) {
	p := getParcel()
	defer p.free()
	f.Payload = payload(p.buf[:0])
	p.buf, p.frame = f.Payload, f

	// The lock is held across TrySend, which does not wait, to keep notices in order.
	l.mu.Lock()
	defer l.mu.Unlock()
	b := &l.backlog[f.Lane]
	if l.closed {
		recoverHandles(f.Handles)
		return
	}
	if l.conn != nil && b.flushing == nil {
		if err := l.conn.TrySend(&p.frame); !errors.Is(err, fdipc.ErrFull) {
			l.unsent(&p.frame, err)
			return
		}
		l.flushLocked(f.Lane)
	}
	if len(b.notices) == maxBacklog {
		l.s.lost.Add(1)
		recoverHandles(f.Handles)
		return
	}
	f.Payload = append([]byte(nil), f.Payload...)
	b.notices = append(b.notices, f)
}

// waiting returns how many notices wait on a lane of the Conn.
func (l *link) waiting(lane fdipc.Lane) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.backlog[lane].notices)
}

// unsent takes back what a Conn did not.
func (l *link) unsent(f *fdipc.Frame, err error) {
	if err == nil {
		return
	}
	recoverHandles(f.Handles)
	if !errors.Is(err, fdipc.ErrClosed) {
		l.s.log.Debug("notice not sent", slog.String("to", l.address), slog.Any("error", err))
	}
}

func (l *link) flushLocked(lane fdipc.Lane) {
	l.backlog[lane].flushing = make(chan struct{})
	l.direct[lane].Store(false)
	// Ends when the backlog is empty or the link is closed.
	go l.flush(lane, l.conn)
}

func (l *link) flush(lane fdipc.Lane, conn Conn) {
	b := &l.backlog[lane]
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := context.AfterFunc(doneContext{ctx, l.done}, cancel)
	defer stop()
	for {
		l.mu.Lock()
		if len(b.notices) == 0 {
			b.notices = nil
			close(b.flushing)
			b.flushing = nil
			l.direct[lane].Store(!l.closed)
			l.mu.Unlock()
			return
		}
		f := b.notices[0]
		b.notices[0] = fdipc.Frame{}
		b.notices = b.notices[1:]
		l.mu.Unlock()
		l.unsent(&f, conn.Send(ctx, &f))
	}
}

// doneContext is a context that ends with a channel.
type doneContext struct {
	context.Context
	done <-chan struct{}
}

func (c doneContext) Done() <-chan struct{} { return c.done }
func (c doneContext) Err() error {
	select {
	case <-c.done:
		return context.Canceled
	default:
		return nil
	}
}

// close ends the link for a reason: nothing more is sent, waiting senders return.
// A lane's Conn is closed and returned.
func (l *link) close(why supervisor.Reason) *fdipc.Conn {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return nil
	}
	l.closed, l.why = true, why
	l.ended.Store(true)
	for i := range l.direct {
		l.direct[i].Store(false)
	}
	l.s.recently(l.address).CompareAndSwap(l, nil)
	close(l.done)
	for i := range l.backlog {
		for _, f := range l.backlog[i].notices {
			recoverHandles(f.Handles)
		}
		l.backlog[i].notices = nil
	}
	if l.timer != nil {
		l.timer.Stop()
	}
	own := l.own
	l.mu.Unlock()
	if !l.lane || own == nil {
		return nil
	}
	_ = own.Close()
	return own
}
