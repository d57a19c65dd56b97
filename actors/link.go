package actors

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// Conn is what a System needs of a channel to another process; a *fdipc.Conn is one.
// The payload of a frame is borrowed until the call returns.
type Conn interface {
	Send(ctx context.Context, f *fdipc.Frame) error
	TrySend(f *fdipc.Frame) error
}

// Attach makes the process with an address reachable through c. Its frames are
// taken from then on, if they carry the incarnation. The peer must attach this
// process too, with [Config].Incarnation of this one.
//
// Attach the same again and nothing happens, so that a frame handler which does
// not know whether it came first may call it. A later incarnation detaches the
// one before, an earlier one is [ErrStale]. The caller keeps c, and closes it.
func (s *System) Attach(address string, incarnation uint64, c Conn) error {
	if err := checkName(address); err != nil || address == s.cfg.Address {
		return fmt.Errorf("actors: attach %q: %w", address, ErrName)
	}
	l := &link{s: s, address: address, incarnation: incarnation, conn: c, done: make(chan struct{})}
	for {
		s.mu.Lock()
		old := s.links[address]
		switch {
		case s.closed.Load():
			s.mu.Unlock()
			return fmt.Errorf("actors: attach %q: %w", address, ErrClosed)
		case old == nil:
			s.links[address] = l
			s.gone.forget(address)
			s.mu.Unlock()
			return nil
		case old.incarnation == incarnation && old.conn == c:
			s.mu.Unlock()
			return nil
		case old.incarnation >= incarnation:
			s.mu.Unlock()
			return fmt.Errorf("actors: attach %q: %w: %d, attached is %d", address, ErrStale, incarnation, old.incarnation)
		}
		s.mu.Unlock()
		s.detach(old, errorReason(ErrStale))
	}
}

// Detach says that the process with an address has ended, and why. Everything
// that waits for it ends, at once: asks, in flight or taken, fail with a
// [DownError], monitors fire, watchers get Terminated, its names are free, and the master
// tells all other processes. Frames of it that come later are refused.
//
// Call it after the Conn's Closed, so that the process's last messages are in,
// and when the exit reason is known. Detach of what is not attached does nothing.
func (s *System) Detach(address string, reason supervisor.Reason) {
	if l := s.attached(address); l != nil {
		s.detach(l, reason)
	}
}

func (s *System) detach(l *link, reason supervisor.Reason) {
	s.mu.Lock()
	if s.links[l.address] != l {
		s.mu.Unlock()
		return
	}
	delete(s.links, l.address)
	s.gone.add(l.address, reason)
	master := s.uplink == ""
	rest := make([]*link, 0, len(s.links))
	for _, other := range s.links {
		rest = append(rest, other)
	}
	s.mu.Unlock()
	l.close()
	if master {
		for _, other := range rest {
			other.post(s.frame(kindGone, fdipc.Data), func(b []byte) []byte {
				b = appendPID(b, ProcessPID(other.address))
				return appendReason(appendString(b, l.address), reason)
			})
		}
	}
	s.ended(l.address, reason)
	if !master && l.address == s.uplinkAddress() { // what came through it ends too
		for _, a := range s.inbound.addresses() {
			if s.attached(a) == nil {
				s.inbound.drop(a)
			}
		}
	}
}

// attached returns the link of an attached process.
func (s *System) attached(address string) *link {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.links[address]
}

// ended ends all that waits for a process, or came from it.
func (s *System) ended(address string, reason supervisor.Reason) {
	s.asks.failWay(address, reason)
	s.monitors.fireWay(address, reason)
	s.inbound.drop(address)
}

// Uplink names the attached process, the master, through which all processes
// are reached that are not attached, and names are resolved. The master has none.
func (s *System) Uplink(address string) {
	s.mu.Lock()
	s.uplink = address
	s.mu.Unlock()
}

func (s *System) uplinkAddress() string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.uplink
}

func (s *System) hasUplink() bool { return s.uplinkAddress() != "" }

// route returns the link on which a frame for an address leaves.
func (s *System) route(address string) (*link, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if l := s.links[address]; l != nil {
		return l, nil
	}
	if l := s.links[s.uplink]; l != nil {
		return l, nil
	}
	for _, a := range []string{address, s.uplink} {
		if r, ok := s.gone.find(a); ok {
			return nil, &DownError{PID: ProcessPID(a), Reason: r}
		}
	}
	return nil, ErrNoActor
}

// link is the way to one incarnation of an attached process.
type link struct {
	s           *System
	address     string
	incarnation uint64
	conn        Conn
	done        chan struct{} // closed by close

	mu       sync.Mutex
	closed   bool
	backlog  []notice      // what found no room and must not be lost, in order
	flushing chan struct{} // closed when the backlog is empty; nil: it is
}

// notice is a frame that waits for room. It owns its payload.
type notice struct{ f fdipc.Frame }

// maxBacklog bounds the notices for a process that does not read. They are in the
// number of monitors and asks; a process that leaves so many unread hangs.
const maxBacklog = 1 << 16

// lostError wraps the error of a channel that has ended while the process is
// still attached: its exit reason will come with Detach.
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
	// The caller has noted what waits for this process. If it is detached before
	// this check we see it here, if after it, detach sees the note.
	if l.isClosed() {
		return l.verdict(fdipc.ErrClosed)
	}
	var cancel context.CancelFunc
	for first := true; ; first = false {
		l.mu.Lock()
		flushing := l.flushing
		l.mu.Unlock()
		if flushing == nil && first {
			err := l.conn.TrySend(f)
			if !errors.Is(err, fdipc.ErrFull) {
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
		if flushing == nil {
			err := l.conn.Send(ctx, f)
			if err != nil && ctx.Err() != nil && !l.isClosed() {
				return context.Cause(ctx)
			}
			return l.verdict(err)
		}
		select { // notices go first: a Monitor must not be overtaken by what follows it
		case <-flushing:
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-l.done:
			return l.verdict(fdipc.ErrClosed)
		}
	}
}

// verdict turns an error of the channel into one of ours.
func (l *link) verdict(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fdipc.ErrTooBig), errors.Is(err, fdipc.ErrTooManyHandles):
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	case errors.Is(err, fdipc.ErrFull):
		return ErrBusy
	}
	l.s.mu.RLock()
	reason, known := l.s.gone.find(l.address)
	l.s.mu.RUnlock()
	if known && l.isClosed() {
		return &DownError{PID: ProcessPID(l.address), Reason: reason}
	}
	return &lostError{err}
}

func (l *link) isClosed() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// try sends f if there is room now.
func (l *link) try(f *fdipc.Frame) error {
	l.mu.Lock()
	waiting := l.flushing != nil
	l.mu.Unlock()
	if waiting {
		return ErrBusy
	}
	return l.verdict(l.conn.TrySend(f))
}

// post sends a notice, without waiting, in order, and without losing it while
// the process lives. payload appends what follows f's header.
func (l *link) post(f fdipc.Frame, payload func([]byte) []byte) {
	buf := getBuffer()
	defer putBuffer(buf)
	*buf = payload((*buf)[:0])
	f.Payload = *buf

	// The lock is held across TrySend, which does not wait, to keep notices in order.
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	if l.flushing == nil {
		if err := l.conn.TrySend(&f); !errors.Is(err, fdipc.ErrFull) {
			if err != nil && !errors.Is(err, fdipc.ErrClosed) {
				l.s.log.Debug("notice not sent", slog.String("to", l.address), slog.Any("error", err))
			}
			return
		}
		l.flushing = make(chan struct{})
		// Ends when the backlog is empty or the link is closed.
		go l.flush()
	}
	if len(l.backlog) == maxBacklog {
		l.s.lost.Add(1)
		return
	}
	f.Payload = append([]byte(nil), f.Payload...)
	l.backlog = append(l.backlog, notice{f})
}

func (l *link) flush() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	stop := context.AfterFunc(doneContext{ctx, l.done}, cancel)
	defer stop()
	for {
		l.mu.Lock()
		if len(l.backlog) == 0 || l.closed {
			l.backlog = nil
			close(l.flushing)
			l.flushing = nil
			l.mu.Unlock()
			return
		}
		n := l.backlog[0]
		l.backlog[0] = notice{}
		l.backlog = l.backlog[1:]
		l.mu.Unlock()
		if err := l.conn.Send(ctx, &n.f); err != nil && ctx.Err() == nil {
			l.s.log.Debug("notice not sent", slog.String("to", l.address), slog.Any("error", err))
		}
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

// close ends the link: nothing more is sent, waiting senders return.
func (l *link) close() {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.done)
	}
	l.mu.Unlock()
}

// goneList keeps the exit reasons of the latest processes that were detached.
type goneList struct {
	reasons map[string]supervisor.Reason
	order   []string
}

const maxGone = 1024

func (g *goneList) add(address string, r supervisor.Reason) {
	if g.reasons == nil {
		g.reasons = make(map[string]supervisor.Reason)
	}
	if _, ok := g.reasons[address]; !ok {
		g.order = append(g.order, address)
	}
	g.reasons[address] = r
	if len(g.order) > maxGone {
		delete(g.reasons, g.order[0])
		g.order = append(g.order[:0], g.order[1:]...)
	}
}

func (g *goneList) forget(address string) {
	if _, ok := g.reasons[address]; !ok {
		return
	}
	delete(g.reasons, address)
	for i, a := range g.order {
		if a == address {
			g.order = append(g.order[:i], g.order[i+1:]...)
			return
		}
	}
}

func (g *goneList) find(address string) (supervisor.Reason, bool) {
	r, ok := g.reasons[address]
	return r, ok
}

// inbound is what other processes wait for here.
type inbound struct {
	mu       sync.Mutex
	asks     map[string]map[uint32]struct{} // address -> request: taken, not answered yet
	monitors map[string]map[uint64]func()   // address -> ref -> takes the monitor back
}

func (in *inbound) init() {
	in.asks = make(map[string]map[uint32]struct{})
	in.monitors = make(map[string]map[uint64]func())
}

func (in *inbound) beginAsk(pid *actor.PID) {
	in.mu.Lock()
	defer in.mu.Unlock()
	set := in.asks[pid.Address]
	if set == nil {
		set = make(map[uint32]struct{})
		in.asks[pid.Address] = set
	}
	set[pid.RequestId] = struct{}{}
}

func (in *inbound) endAsk(pid *actor.PID) {
	in.mu.Lock()
	defer in.mu.Unlock()
	set := in.asks[pid.Address]
	delete(set, pid.RequestId)
	if len(set) == 0 {
		delete(in.asks, pid.Address)
	}
}

func (in *inbound) hasAsk(pid *actor.PID) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	_, ok := in.asks[pid.Address][pid.RequestId]
	return ok
}

// addMonitor keeps off for a monitor; false when there is one with this ref.
func (in *inbound) addMonitor(address string, ref uint64, off func()) bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	set := in.monitors[address]
	if set == nil {
		set = make(map[uint64]func())
		in.monitors[address] = set
	}
	if _, ok := set[ref]; ok {
		return false
	}
	set[ref] = off
	return true
}

// takeMonitor removes a monitor and returns its off; nil when there is none.
func (in *inbound) takeMonitor(address string, ref uint64) func() {
	in.mu.Lock()
	defer in.mu.Unlock()
	set := in.monitors[address]
	off := set[ref]
	delete(set, ref)
	if len(set) == 0 {
		delete(in.monitors, address)
	}
	return off
}

// addresses returns the processes that wait for something here.
func (in *inbound) addresses() []string {
	in.mu.Lock()
	defer in.mu.Unlock()
	list := slices.Collect(maps.Keys(in.asks))
	return slices.AppendSeq(list, maps.Keys(in.monitors))
}

// drop forgets what a process waited for.
func (in *inbound) drop(address string) {
	in.mu.Lock()
	set := in.monitors[address]
	delete(in.monitors, address)
	delete(in.asks, address)
	in.mu.Unlock()
	for _, off := range set {
		off()
	}
}
