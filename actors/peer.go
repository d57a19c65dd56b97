package actors

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// Conn is what a System needs of a channel to another process; a *fdipc.Conn is one. The payload of
// a frame is borrowed until the call returns.
type Conn interface {
	Send(ctx context.Context, f *fdipc.Frame) error
	TrySend(f *fdipc.Frame) error
}

// peer is one incarnation of another process and the channel to it: one that was attached, or a
// lane that this package makes.
type peer struct {
	proc        *localProcess
	slot        *atomic.Pointer[peer] // where the table of peers may cache it
	address     string
	incarnation uint64          // of a lane: set before opened
	lane        bool            // made and closed by this package
	foreign     bool            // of another host
	opened      chan struct{}   // closed when conn is there
	over        context.Context // ends with close
	end         func()          // ends over

	lastTargets [2]lastTarget  // by lane of the Conn; each is its reader's
	ended       atomic.Bool    // closed, for readers
	talks       atomic.Bool    // in the master: it may know of other processes, and hears of their ends
	rested      atomic.Bool    // closed as it was idle: what is sent to it goes to the next lane
	sendDirect  [2]atomic.Bool // by lane of the Conn: there is a Conn, and no backlog
	asksWaiting atomic.Int32   // asks to this peer that wait for their answers
	share       askShare       // of the asks that came from it

	mu          sync.Mutex
	conn        Conn
	laneConn    *fdipc.Conn // of a lane: conn, to be closed with the peer
	using       int         // sends that are in the Conn
	rest        laneRest    // of a lane to another host
	number      uint64      // of a lane
	closed      bool
	onHold      bool                            // the system is suspended: what is sent waits in the backlog
	holding     context.Context                 // ends with hold, to end the sends that wait
	endSends    func()                          // ends holding
	types       []byte                          // the list that the peer has sent, for another image; nil: none
	closeReason supervisor.Reason               // of close
	readable    atomic.Pointer[codec.PeerTypes] // what the peer can read; nil: all, as far as is known
	backlog     [2]backlog                      // by lane of the Conn

	// Of a lane that is ending.
	connEnded bool               // its Conn has ended: all that came was handled
	endReason *supervisor.Reason // the master has said why its process ended
	forgotten bool               // the master has said that its process may live
	timer     *time.Timer        // ends the wait for the other of the two
}

// backlog are the notices for which there was no room, or no Conn yet, in order. None may be lost.
type backlog struct {
	notices  []fdipc.Frame // their payloads are the backlog's
	flushing chan struct{} // closed when the backlog is empty; nil: no goroutine sends it now
}

// maxBacklog bounds the notices for a process that does not read. There are about as many as it has
// monitors and asks; a process that leaves so many unread hangs.
const maxBacklog = 1 << 16

func newPeer(proc *localProcess, slot *atomic.Pointer[peer], address string) *peer {
	p := &peer{
		proc: proc, slot: slot, address: address, foreign: proc.isForeign(address), share: askShare{address: address},
		opened: make(chan struct{}),
	}
	p.over, p.end = context.WithCancel(context.Background())
	p.holding, p.endSends = context.WithCancel(context.Background())
	return p
}

// lastTarget returns what the last message on a lane of the Conn was.
func (p *peer) lastTarget(lane fdipc.Lane) *lastTarget {
	if int(lane) < len(p.lastTargets) {
		return &p.lastTargets[lane]
	}
	return new(lastTarget)
}

// open gives the peer its Conn. The backlog goes first.
func (p *peer) open(c Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.conn != nil {
		return false
	}
	p.conn = c
	p.laneConn, _ = c.(*fdipc.Conn)
	p.sendBacklogLocked()
	close(p.opened)
	return true
}

// sendBacklogLocked lets frames go to the Conn, if there is one, after those of the backlog.
func (p *peer) sendBacklogLocked() {
	for lane := range p.backlog {
		if p.conn == nil || p.onHold || p.closed || p.rest.until != nil {
			return
		}
		if len(p.backlog[lane].notices) > 0 {
			p.flushLocked(fdipc.Lane(lane))
		} else {
			p.sendDirect[lane].Store(true)
		}
	}
}

// hold keeps what is sent in the backlog, from now on. It waits for the sends that wait for room:
// their frames are in the backlog too.
func (p *peer) hold() {
	p.mu.Lock()
	p.onHold = true
	for i := range p.sendDirect {
		p.sendDirect[i].Store(false)
	}
	flushing := []chan struct{}{p.backlog[0].flushing, p.backlog[1].flushing}
	p.mu.Unlock()
	p.endSends()
	for _, done := range flushing {
		if done != nil {
			<-done
		}
	}
}

// release undoes hold. A peer that has come since then sends its backlog already.
func (p *peer) release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.onHold {
		return
	}
	p.onHold = false
	p.holding, p.endSends = context.WithCancel(context.Background())
	p.sendBacklogLocked()
}

// channelLostError wraps the error of a channel that has ended while its process is not known to
// have ended: the exit reason comes with Detach.
type channelLostError struct{ err error }

func (e *channelLostError) Error() string        { return "channel lost: " + e.err.Error() }
func (e *channelLostError) Unwrap() error        { return e.err }
func (e *channelLostError) Is(target error) bool { return target == ErrDown }

func isChannelLost(err error) bool {
	_, is := errors.AsType[*channelLostError](err)
	return is
}

// send takes f, with its payload, to the channel. It waits under ctx; under noContext for at most
// SendWait.
func (p *peer) send(ctx context.Context, f *fdipc.Frame) error {
	if p.foreign || !p.sendDirect[f.Lane].Load() { // a lane that rests must know who sends
		return p.sendInTurn(ctx, f, false)
	}
	// The notices that the caller posted before were sent in this way too.
	err := p.conn.TrySend(f)
	if noRoom(err) {
		return p.sendInTurn(ctx, f, true)
	}
	return p.sendError(err)
}

// noRoom reports whether the Conn takes no frame just now.
func noRoom(err error) bool {
	return err != nil && (errors.Is(err, fdipc.ErrFull) || errors.Is(err, fdipc.ErrSuspended))
}

// sendInTurn sends f after the notices that wait, and waits for room. full says that there was none
// just now.
func (p *peer) sendInTurn(ctx context.Context, f *fdipc.Frame, full bool) error {
	var cancel context.CancelFunc
	for first := !full; ; first = false {
		// The caller has noted what waits for this process. A detach before this look is seen here;
		// a detach after it sees the note.
		p.mu.Lock()
		closed, conn, wait, holding := p.closed, p.conn, p.backlog[f.Lane].flushing, p.holding
		if p.onHold && !closed {
			defer p.mu.Unlock()
			return p.keepLocked(f)
		}
		if p.rest.until != nil && !closed {
			wait = p.rest.until
		}
		if p.foreign && wait == nil && conn != nil && !closed && first {
			err := conn.TrySend(f)
			p.mu.Unlock()
			if !noRoom(err) {
				return p.sendError(err)
			}
			continue
		}
		if p.foreign && conn != nil && wait == nil && !closed {
			p.using++
		}
		p.mu.Unlock()
		if closed && p.rested.Load() {
			next, err := p.rest.again()
			if err != nil {
				return err
			}
			return next.send(ctx, f)
		}
		if closed {
			return p.sendError(fdipc.ErrClosed)
		}
		if conn == nil {
			wait = p.opened
		}
		if wait == nil && first && !p.foreign {
			if err := conn.TrySend(f); !noRoom(err) {
				return p.sendError(err)
			}
		}
		if cancel == nil {
			if ctx == noContext {
				ctx, cancel = context.WithTimeoutCause(context.Background(), p.proc.sendWait, ErrBusy)
			} else {
				ctx, cancel = context.WithCancel(ctx)
			}
			defer cancel()
		}
		if wait == nil {
			err := sendUntil(ctx, holding, conn, f)
			p.used()
			if err != nil && !p.isClosed() {
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if holding.Err() != nil {
					continue
				}
			}
			return p.sendError(err)
		}
		select { // notices go first: a Monitor must not be overtaken by what follows it
		case <-wait:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-p.over.Done():
		}
	}
}

// used notes that a send has left the Conn.
func (p *peer) used() {
	if !p.foreign {
		return
	}
	p.mu.Lock()
	p.using--
	p.mu.Unlock()
}

// sendUntil is conn.Send that ends with hold, too.
func sendUntil(ctx, holding context.Context, conn Conn, f *fdipc.Frame) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(holding, cancel)()
	return conn.Send(ctx, f)
}

// keepLocked appends f to the backlog, with its handles, which are the peer's then.
func (p *peer) keepLocked(f *fdipc.Frame) error {
	b := &p.backlog[f.Lane]
	if len(b.notices) == maxBacklog {
		return ErrBusy
	}
	kept := *f
	kept.Payload = append([]byte(nil), f.Payload...)
	b.notices = append(b.notices, kept)
	return nil
}

// sendError turns an error of the channel into one of this package.
func (p *peer) sendError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fdipc.ErrTooBig), errors.Is(err, fdipc.ErrTooManyHandles), errors.Is(err, fdipc.ErrHandleKind):
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	case errors.Is(err, fdipc.ErrFull):
		return ErrBusy
	}
	if p.isClosed() {
		return downError(ProcessPID(p.address), p.reasonOfClose())
	}
	return &channelLostError{err}
}

// reasonOfClose returns why the peer is closed.
func (p *peer) reasonOfClose() supervisor.Reason {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closeReason
}

func (p *peer) isClosed() bool { return p.over.Err() != nil }

// post sends a notice in order. It does not wait, and the notice is not lost while the process
// lives (but see maxBacklog). payload appends what follows f's header. The handles of f are the
// peer's.
func (p *peer) post(f fdipc.Frame, payload func([]byte) []byte) {
	fb := getFrameBuffer()
	defer fb.free()
	f.Payload = payload(fb.buf[:0])
	fb.buf, fb.frame = f.Payload, f

	// The lock is held across TrySend, which does not wait, to keep notices in order.
	p.mu.Lock()
	if p.closed && p.rested.Load() {
		p.mu.Unlock()
		if next, err := p.rest.again(); err == nil {
			next.post(f, func(b []byte) []byte { return append(b, f.Payload...) })
		}
		return
	}
	defer p.mu.Unlock()
	b := &p.backlog[f.Lane]
	if p.closed {
		recoverHandles(f.Handles)
		return
	}
	if p.conn != nil && b.flushing == nil && !p.onHold && p.rest.until == nil {
		if err := p.conn.TrySend(&fb.frame); !noRoom(err) {
			p.recoverUnsent(&fb.frame, err)
			return
		}
		p.flushLocked(f.Lane)
	}
	if p.keepLocked(&f) != nil {
		p.proc.lost.Add(1)
		recoverHandles(f.Handles)
	}
}

// postLane posts a lane frame about the process with an address. more, if it is not nil, appends
// what follows the address. The handles are the peer's.
func (p *peer) postLane(op byte, address string, more func([]byte) []byte, handles ...*fdipc.Handle) {
	p.talks.Store(true)
	f := p.proc.frame(wire.KindLane, fdipc.Control)
	f.Handles = handles
	p.post(f, func(b []byte) []byte {
		b = wire.AppendString(append(wire.AppendPID(b, ProcessPID(p.address)), op), address)
		if more != nil {
			b = more(b)
		}
		return b
	})
}

// postProcessEnded posts that the process with an address has ended.
func (p *peer) postProcessEnded(address string, reason supervisor.Reason) {
	p.post(p.proc.frame(wire.KindProcessEnded, fdipc.Control), func(b []byte) []byte {
		return appendReason(wire.AppendString(wire.AppendPID(b, ProcessPID(p.address)), address), reason)
	})
}

// waiting returns how many notices wait on the control lane of the Conn.
func (p *peer) waiting() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.backlog[fdipc.Control].notices)
}

// recoverUnsent closes the handles of a notice that the Conn did not take.
func (p *peer) recoverUnsent(f *fdipc.Frame, err error) {
	if err == nil {
		return
	}
	recoverHandles(f.Handles)
	if !errors.Is(err, fdipc.ErrClosed) {
		p.proc.log.Debug("notice not sent", slog.String("to", p.address), slog.Any("error", err))
	}
}

func (p *peer) flushLocked(lane fdipc.Lane) {
	p.backlog[lane].flushing = make(chan struct{})
	p.sendDirect[lane].Store(false)
	// Ends when the backlog is empty or the peer is closed.
	go p.flush(lane, p.conn, p.holding)
}

func (p *peer) flush(lane fdipc.Lane, conn Conn, holding context.Context) {
	b := &p.backlog[lane]
	for {
		p.mu.Lock()
		if len(b.notices) == 0 || p.onHold {
			if len(b.notices) == 0 {
				b.notices = nil
			}
			close(b.flushing)
			b.flushing = nil
			p.sendDirect[lane].Store(!p.closed && !p.onHold)
			p.mu.Unlock()
			return
		}
		f := b.notices[0]
		b.notices[0] = fdipc.Frame{}
		b.notices = b.notices[1:]
		p.mu.Unlock()
		err := sendUntil(p.over, holding, conn, &f)
		if err != nil && holding.Err() != nil && errors.Is(err, context.Canceled) && p.putBack(&f) {
			continue
		}
		p.recoverUnsent(&f, err)
	}
}

// putBack puts a frame that hold has kept from being sent in front of the backlog.
func (p *peer) putBack(f *fdipc.Frame) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		b := &p.backlog[f.Lane]
		b.notices = slices.Insert(b.notices, 0, *f)
	}
	return !p.closed
}

// close ends the peer for a reason: nothing more is sent, waiting senders return. A lane's Conn is
// closed and returned.
func (p *peer) close(why supervisor.Reason) *fdipc.Conn {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closeLocked(why)
	own := p.laneConn
	p.mu.Unlock()
	if !p.lane || own == nil {
		return nil
	}
	_ = own.Close()
	return own
}

// closeLocked is close, but for the lane's Conn.
func (p *peer) closeLocked(why supervisor.Reason) {
	p.closed, p.closeReason = true, why
	p.ended.Store(true)
	for i := range p.sendDirect {
		p.sendDirect[i].Store(false)
	}
	p.slot.CompareAndSwap(p, nil)
	p.end()
	for i := range p.backlog {
		for _, f := range p.backlog[i].notices {
			recoverHandles(f.Handles)
		}
		p.backlog[i].notices = nil
	}
	if p.timer != nil {
		p.timer.Stop()
	}
}

// setTypes takes the list of the types that the peer can read. It returns false if it is none.
func (p *peer) setTypes(list []byte) bool {
	r := &wire.Reader{B: list}
	pt := codec.ReadPeerTypes(r)
	if r.Bad {
		return false
	}
	if pt == nil {
		list = codec.OwnTypes() // the same
	} else {
		list = bytes.Clone(list)
	}
	p.mu.Lock()
	p.types = list
	p.mu.Unlock()
	p.readable.Store(pt)
	return true
}

// canRead returns why the peer could not read msg; nil: it can, as far as this process knows.
func (p *peer) canRead(msg any) error {
	if pt := p.readable.Load(); pt != nil {
		return pt.Check(msg, p.address)
	}
	return nil
}

// pending reports whether the peer has no Conn yet.
func (p *peer) pending() bool {
	select {
	case <-p.opened:
		return false
	default:
		return true
	}
}
