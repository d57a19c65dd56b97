package netactor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/tracing"
)

// ListenersConfig configures a worker's Listeners. Zero fields mean the default.
type ListenersConfig struct {
	Master *fdipc.Conn     // whom to ask; nil: nobody, then Listen is net.Listen
	Pool   string          // the worker's pool, for spans
	Logger *slog.Logger    // default slog.Default
	Tracer *tracing.Tracer // default nil: no spans
}

// Listeners is the worker's side: it asks the master for listeners, takes the
// connections that the listener process offers, and counts what is open, so
// that the worker can be drained. All methods may be called by any goroutine.
type Listeners struct {
	cfg   ListenersConfig
	conns gauge

	mu       sync.Mutex
	link     *fdipc.Conn // to the listener process; nil without
	seq      uint64
	asks     map[uint64]asking // requests that wait for a reply
	byNumber map[uint64]member // what the master gave us
	own      map[member]bool   // what nobody else knows of
	tallies  map[uint64]*tally // by number; they stay, see tally
	ordinals map[string]map[int]bool
	closed   bool
}

// member is one open listener of a worker.
type member interface {
	net.Listener
	shut() // the master has closed it
	// joins reports whether its connections come from the listener process.
	joins() bool
}

// asking is a request that waits for its reply.
type asking struct {
	network string   // as asked, for errors
	addr    net.Addr // as resolved, for errors
	done    func()   // gives the ordinal back; may be called more than once
	result  chan result
}

type result struct {
	m   member
	err error
}

// NewListeners returns a worker's Listeners, without any yet.
func NewListeners(cfg ListenersConfig) *Listeners {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return &Listeners{
		cfg:      cfg,
		conns:    gauge{zero: make(chan struct{}, 1)},
		asks:     make(map[uint64]asking),
		byNumber: make(map[uint64]member),
		own:      make(map[member]bool),
		tallies:  make(map[uint64]*tally),
		ordinals: make(map[string]map[int]bool),
	}
}

// AddLink says that a listener process is there, with the Conn to it, at the
// start and after each restart. Every listener joins by it. The link stays the
// caller's; its Handler gives this package's kinds to [Listeners.HandleFrame].
// What came over an earlier link and waits to be accepted stays acceptable.
func (ls *Listeners) AddLink(c *fdipc.Conn) {
	ls.mu.Lock()
	ls.link = c
	var join []*tally
	for number, m := range ls.byNumber {
		if m.joins() {
			join = append(join, ls.tallyLocked(number))
		}
	}
	ls.mu.Unlock()
	for _, t := range join {
		t.join(c)
	}
}

// HandleFrame handles a frame of this package's kinds from the master or from
// the listener process. It is false for a kind that is not handled here: then
// the frame is untouched. It does not block.
func (ls *Listeners) HandleFrame(c *fdipc.Conn, f *fdipc.Frame) bool {
	switch f.Kind {
	case KindOffer:
		ls.offerFrame(c, f)
		return true
	case KindReply:
		if c == ls.cfg.Master {
			c.Settle() // our copy of a socket that went with the request holds the port
			ls.replyFrame(f)
			return true
		}
	case KindShut:
		if c == ls.cfg.Master {
			ls.shutFrame(f.Target)
		}
	case KindJoin:
		ls.mu.Lock()
		t := ls.tallies[f.Target]
		ls.mu.Unlock()
		if t != nil && c != ls.cfg.Master {
			t.inRotation()
		}
	default:
		return false
	}
	f.Refuse(fdipc.ReasonUnknown)
	return true
}

func (ls *Listeners) offerFrame(c *fdipc.Conn, f *fdipc.Frame) {
	ls.mu.Lock()
	l, ok := ls.byNumber[f.Target].(*queueListener)
	ls.mu.Unlock()
	if !ok {
		f.Refuse(ReasonClosed)
		return
	}
	l.push(c, f.Handles)
}

// replyFrame makes the listener that was asked for. It does so here, and not in
// Listen, so that what the master says next finds it.
func (ls *Listeners) replyFrame(f *fdipc.Frame) {
	var r reply
	if err := decode(f.Payload, &r); err != nil {
		r = failed(err)
	}
	var h *fdipc.Handle
	if len(f.Handles) > 0 {
		h = f.Handles[0]
	}
	ls.mu.Lock()
	a, waiting := ls.asks[f.Target]
	delete(ls.asks, f.Target)
	ls.mu.Unlock()
	if !waiting { // given up, as the master knows by now or will (N104)
		if h != nil {
			_ = h.Close()
		}
		return
	}
	var res result
	if res.err = r.err(a.network, a.addr); res.err == nil {
		res.m, res.err = ls.member(r, h, a.done)
	}
	if res.err != nil {
		ls.discard(r, h)
		a.done() // a failed listen leaves no trace (N87)
	}
	a.result <- res // capacity 1, and the only one
}

// discard gives back a listener that nobody wants.
func (ls *Listeners) discard(r reply, h *fdipc.Handle) {
	if h != nil {
		_ = h.Close()
	}
	if r.Errno == 0 {
		ls.tell(ls.cfg.Master, KindClosed, r.Number)
	}
}

func (ls *Listeners) shutFrame(number uint64) {
	ls.mu.Lock()
	m := ls.byNumber[number]
	ls.mu.Unlock()
	if m != nil {
		m.shut()
	}
}

// tell sends a frame without a payload, if that is possible. What cannot be
// sent need not be: the peer is gone, or is cut off for not reading.
func (ls *Listeners) tell(c *fdipc.Conn, k fdipc.Kind, number uint64) {
	if c != nil {
		_ = c.TrySend(&fdipc.Frame{Kind: k, Target: number})
	}
}

// Listen opens a listener, or shares one that is open: names are looked up
// here, the master opens the socket. It waits for the name server and for the
// master until ctx ends, which gives up: what the master opens too late is
// closed. Errors are those of net.Listen. The listener is to be closed by the
// caller, or by Drain.
func (ls *Listeners) Listen(ctx context.Context, r Request) (net.Listener, error) {
	if ls.cfg.Master == nil {
		return ls.listenAlone(ctx, r)
	}
	return ls.ask(ctx, r, nil)
}

// Share gives the master a listening socket that this worker has opened, under
// r.Name, so that others can listen on it by name or address; r.Policy and
// r.Limits say how its connections are shared out. It takes ownership of ln,
// also on an error, and returns this worker's own part of it. A taken name is
// EADDRINUSE. Without a master it is Adopt.
func (ls *Listeners) Share(ctx context.Context, r Request, ln net.Listener) (net.Listener, error) {
	if ls.cfg.Master == nil {
		return ls.Adopt(ln), nil
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // the path is the master's from now on
	}
	h, err := fdipc.HandleOf(ln)
	if err != nil {
		_ = ln.Close()
		return nil, listenError(ln.Addr().Network(), ln.Addr(), err)
	}
	a := ln.Addr()
	r.FD, r.Network, r.Address = 0, a.Network(), a.String()
	return ls.ask(ctx, r, h)
}

// Adopt returns a listener over ln, of which nobody else is told: it is closed
// with the worker, and its connections are counted. It takes ownership of ln.
func (ls *Listeners) Adopt(ln net.Listener) net.Listener {
	m := newOwnListener(ls, ln, ln.Addr(), 0, "")
	ls.mu.Lock()
	closed := ls.closed
	if !closed {
		ls.own[m] = true
	}
	ls.mu.Unlock()
	if closed {
		m.shut()
	}
	return m
}

// listenAlone is Listen without a master, as in a test of a worker's function.
func (ls *Listeners) listenAlone(ctx context.Context, r Request) (net.Listener, error) {
	if err := r.validate(); err != nil {
		return nil, listenError(r.Network, nil, err)
	}
	if r.Network == "" {
		return nil, listenError(r.Network, nil, os.NewSyscallError("listen", syscall.ENOENT))
	}
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, r.Network, r.Address)
	if err != nil {
		return nil, err
	}
	return ls.Adopt(ln), nil
}

// ask sends a request and makes a listener of the reply. h is a socket to go
// with it, or nil; it is consumed.
func (ls *Listeners) ask(ctx context.Context, asked Request, h *fdipc.Handle) (net.Listener, error) {
	r, err := asked.resolve(ctx)
	if err != nil {
		if h != nil {
			_ = h.Close()
		}
		return nil, err
	}
	addr, _ := parseAddr(r.Network, r.Address) // none for a name alone
	base := r.key()
	r.Ordinal = ls.takeOrdinal(base)
	a := asking{
		network: asked.Network, addr: addr,
		done:   sync.OnceFunc(func() { ls.giveOrdinal(base, r.Ordinal) }),
		result: make(chan result, 1),
	}
	ls.mu.Lock()
	ls.seq++
	seq := ls.seq
	ls.asks[seq] = a
	ls.mu.Unlock()
	f := &fdipc.Frame{Kind: KindListen, Target: seq, Payload: encode(r)}
	if h != nil {
		f.Kind, f.Handles = KindShare, []*fdipc.Handle{h}
	}
	if err = ls.cfg.Master.Send(ctx, f); err != nil && h != nil {
		_ = h.Close()
	}
	if err == nil {
		select {
		case res := <-a.result:
			return res.m, res.err
		case <-ctx.Done():
			err = ctx.Err()
		case <-ls.cfg.Master.Done():
			err = fdipc.ErrPeerLost
		}
	}
	ls.mu.Lock()
	_, waiting := ls.asks[seq]
	delete(ls.asks, seq)
	ls.mu.Unlock()
	if waiting {
		ls.tell(ls.cfg.Master, KindGiveUp, seq)
	} else if res := <-a.result; res.m != nil { // the reply came just now
		_ = res.m.Close()
	}
	a.done()
	return nil, listenError(asked.Network, addr, err)
}

// member makes the listener that a reply is about; h is the socket that came
// with it, or nil. On an error both are still the caller's.
func (ls *Listeners) member(r reply, h *fdipc.Handle, done func()) (m member, err error) {
	addr, err := r.addr()
	if err != nil {
		return nil, err
	}
	if r.Policy.dispatched() {
		m = newQueueListener(ls, r, addr, done)
	} else {
		if h == nil {
			return nil, errors.New("netactor: listen: reply without a socket")
		}
		ln, err := h.Listener()
		if err != nil {
			return nil, fmt.Errorf("netactor: listen: %w", err)
		}
		o := newOwnListener(ls, ln, addr, r.Number, r.Name)
		o.done = done
		m = o
	}
	ls.mu.Lock()
	if ls.closed {
		ls.mu.Unlock()
		m.shut()
		return nil, listenError(addr.Network(), addr, net.ErrClosed)
	}
	ls.byNumber[r.Number] = m
	link, t := ls.link, ls.tallyLocked(r.Number)
	ls.mu.Unlock()
	if m.joins() && link != nil {
		t.join(link)
	}
	return m, nil
}

// takeOrdinal returns the lowest number that no listener of this worker on the
// same address has.
func (ls *Listeners) takeOrdinal(key string) int {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	used := ls.ordinals[key]
	if used == nil {
		used = make(map[int]bool)
		ls.ordinals[key] = used
	}
	n := 0
	for used[n] {
		n++
	}
	used[n] = true
	return n
}

func (ls *Listeners) giveOrdinal(key string, n int) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	delete(ls.ordinals[key], n)
	if len(ls.ordinals[key]) == 0 {
		delete(ls.ordinals, key)
	}
}

// forget takes a closed listener off the list. It returns the link that it had
// joined, or nil.
func (ls *Listeners) forget(m member, number uint64) *fdipc.Conn {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	delete(ls.own, m)
	if number == 0 || ls.byNumber[number] != m {
		return nil
	}
	delete(ls.byNumber, number)
	if !m.joins() {
		return nil
	}
	return ls.link
}

// tallyLocked returns the tally of a listener.
func (ls *Listeners) tallyLocked(number uint64) *tally {
	t := ls.tallies[number]
	if t == nil {
		t = newTally(number)
		ls.tallies[number] = t
	}
	return t
}

// Joined waits until every listener that gets its connections from the listener
// process is in its rotation, or ctx ends; then it returns ctx's error. A worker
// that says it is ready after that gets its turn from then on.
func (ls *Listeners) Joined(ctx context.Context) error {
	ls.mu.Lock()
	var wait []*tally
	for number, m := range ls.byNumber {
		if m.joins() {
			wait = append(wait, ls.tallyLocked(number))
		}
	}
	ls.mu.Unlock()
	for _, t := range wait {
		select {
		case <-t.joined:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Conns is the number of connections that are open: accepted from any listener
// here, and not yet closed.
func (ls *Listeners) Conns() int { return int(ls.conns.n.Load()) }

// Drain closes all listeners, so that what they have not accepted goes to other
// workers, and waits until every connection is closed, or ctx ends; then it
// returns ctx's error. A later Listen fails.
func (ls *Listeners) Drain(ctx context.Context) error {
	ls.mu.Lock()
	ls.closed = true
	var all []member
	for _, m := range ls.byNumber {
		all = append(all, m)
	}
	for m := range ls.own {
		all = append(all, m)
	}
	ls.mu.Unlock()
	for _, m := range all {
		_ = m.Close()
	}
	return ls.conns.wait(ctx)
}

// gauge counts open connections.
type gauge struct {
	n    atomic.Int64
	zero chan struct{} // capacity 1: n may have come to 0
}

func (g *gauge) done() {
	if g.n.Add(-1) == 0 {
		g.signal()
	}
}

func (g *gauge) signal() {
	select {
	case g.zero <- struct{}{}:
	default:
	}
}

func (g *gauge) wait(ctx context.Context) error {
	for g.n.Load() > 0 {
		select {
		case <-g.zero:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	g.signal() // for others that wait
	return nil
}
