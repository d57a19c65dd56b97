package listen

import (
	"context"
	"encoding/binary"
	"errors"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/faults"
	"github.com/coppice-go/coppice/netactor/internal/wire"
	"github.com/coppice-go/coppice/tracing"
)

// Config configures a worker's Listeners. Zero fields mean the default.
type Config struct {
	Master *fdipc.Conn     // the channel to the master; nil: none, then Listen is net.Listen
	Pool   string          // the worker's pool, for spans
	Logger *slog.Logger    // default slog.Default
	Tracer *tracing.Tracer // default nil: no spans

	// Stopping is closed when the worker is asked to stop. The worker reports a close after that to
	// the master at once. It reports an earlier close when it has lived on for 250 ms, because a
	// worker that fails may close its sockets an instant before its end. nil: the worker is never
	// asked.
	Stopping <-chan struct{}

	// Serving notes that a connection is served whose first bytes have a key, see
	// netactor.Functions.PoisonKey, until end is called; nil = there is no room. Default: none is
	// noted.
	Serving func(key string) (end func())
}

// Listeners is the worker's side: it asks the master for listeners, takes the connections that the
// listener process offers, and counts the open connections, so that the worker can be drained. All
// methods may be called by any goroutine.
type Listeners struct {
	cfg      Config
	conns    *openConns
	requests fdipc.Calls[pendingListen, openSocket] // to the master

	returning *returningConns
	parking   atomic.Bool // the worker drains: each connection between two requests goes back

	mu              sync.Mutex
	links           []*fdipc.Conn         // to the listener process, the last one, and to those that retire
	byNumber        map[uint64]openSocket // sockets that the master gave us
	unknownToMaster map[openSocket]bool   // sockets that no other process knows
	reporters       map[uint64]*reporter  // by number; never removed, see reporter
	ordinals        map[string]map[int]bool
	closed          bool
	load            int64 // as the worker reported it, or netactor.None

	shortage faults.Outage // of descriptors, for sockets that others hand over

	closes pendingCloses // not reported to the master yet
}

// openSocket is one open listener, or packet socket, of a worker.
type openSocket interface {
	Close() error
	closedByMaster() // the master has closed it
	// dispatched reports whether the listener process hands it its connections.
	dispatched() bool
}

// New returns a worker's Listeners, without a listener.
func New(cfg Config) *Listeners {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	ls := &Listeners{
		cfg:             cfg,
		conns:           &openConns{all: map[*connRecord]net.Conn{}, none: newNoneLeft()},
		byNumber:        make(map[uint64]openSocket),
		unknownToMaster: make(map[openSocket]bool),
		reporters:       make(map[uint64]*reporter),
		ordinals:        make(map[string]map[int]bool),
		load:            netactor.None,
	}
	ls.returning = newReturningConns(ls)
	ls.closes.send = func(number uint64) { ls.sendKind(cfg.Master, wire.KindClosed, number) }
	return ls
}

// AddLink adds a link to the listener process. Call it at the start and after each restart of the
// listener process; at the start also for those that retire, before. Every dispatched listener
// joins by the link, a later one by each link that has not ended. The caller owns the link; its
// Handler gives this package's kinds to [Listeners.HandleFrame]. Connections that came over an
// earlier link and wait to be accepted can still be accepted.
func (ls *Listeners) AddLink(c *fdipc.Conn) {
	ls.mu.Lock()
	ls.links = append(slices.DeleteFunc(ls.links, func(l *fdipc.Conn) bool { return isClosed(l.Done()) }), c)
	load, join := ls.load, ls.dispatchedLocked()
	ls.mu.Unlock()
	if load >= 0 {
		_ = c.TrySend(&fdipc.Frame{Kind: wire.KindLoad, Payload: wire.Count(uint64(load))})
	}
	for _, r := range join {
		r.join(c)
	}
	ls.returning.linked()
	ls.parkAll()
}

// currentLink returns the link to the listener process; nil if there is none.
func (ls *Listeners) currentLink() *fdipc.Conn {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.linkLocked()
}

func (ls *Listeners) linkLocked() *fdipc.Conn {
	if len(ls.links) == 0 {
		return nil
	}
	return ls.links[len(ls.links)-1]
}

// linked reports whether there is a link to the listener process that has not ended.
func (ls *Listeners) linked() bool {
	link := ls.currentLink()
	return link != nil && !isClosed(link.Done())
}

// Report sets the load of this worker for LeastLoaded, in a unit that the caller chooses. The
// worker with the least load gets the next connection. The load is compared in place of the number
// of connections. Until the next report each new connection adds 1 to it, and each that ends
// subtracts 1; so the unit should be about the load of one connection. Call Report now and then, at
// most some times a second. A negative load counts as 0.
func (ls *Listeners) Report(load int) {
	ls.mu.Lock()
	ls.load = max(0, int64(load))
	link := ls.linkLocked()
	ls.mu.Unlock()
	ls.send(link, &fdipc.Frame{Kind: wire.KindLoad, Payload: wire.Count(uint64(max(0, load)))})
}

// HandleFrame handles a frame of this package's kinds from the master or from the listener process.
// It returns false, and leaves the frame untouched, if it does not handle the kind. It does not
// block.
func (ls *Listeners) HandleFrame(c *fdipc.Conn, f *fdipc.Frame) bool {
	switch f.Kind {
	case wire.KindOffer:
		ls.offerFrame(c, f)
		return true
	case wire.KindPark:
		if c != ls.cfg.Master {
			ls.passFrame(c, f)
		}
	case wire.KindReply:
		if c == ls.cfg.Master {
			c.ResolveOffers() // our copy of a socket that was sent with the request holds the port
			ls.replyFrame(f, false)
			return true
		}
	case wire.KindShut:
		if c == ls.cfg.Master {
			ls.shutFrame(f.Target)
		}
	case wire.KindOpen:
		if c == ls.cfg.Master {
			ls.renewFrame(f)
		}
	case wire.KindPause, wire.KindResume:
		if l := ls.directListener(f.Target); l != nil && c == ls.cfg.Master {
			l.pause(f.Kind == wire.KindPause)
		}
	case wire.KindJoin, wire.KindCounters:
		ls.mu.Lock()
		r, link := ls.reporters[f.Target], ls.linkLocked()
		ls.mu.Unlock()
		switch {
		case r == nil || c != link:
		case f.Kind == wire.KindJoin:
			r.inRotation()
		default:
			r.turnOff(c)
		}
	default:
		return false
	}
	f.Refuse(fdipc.ReasonUnknown)
	return true
}

func (ls *Listeners) offerFrame(c *fdipc.Conn, f *fdipc.Frame) {
	ls.mu.Lock()
	l, ok := ls.byNumber[f.Target].(*queuedListener)
	ls.mu.Unlock()
	if !ok {
		f.Refuse(wire.ReasonClosed)
		return
	}
	if ls.shortage.Lasts() {
		ls.shortage.End(ls.cfg.Logger, faults.HandlesArrived)
	}
	l.push(c, f.Handles, f.Payload)
}

// passFrame passes parked connections on, from a listener process that ends to its successor.
func (ls *Listeners) passFrame(c *fdipc.Conn, f *fdipc.Frame) {
	if ls.currentLink() == c {
		return // there is no link to the successor, or not yet
	}
	var all []*returningConn
	for i, h := range f.Handles {
		if at := 8 * i; at+8 <= len(f.Payload) && h.Claim() == nil {
			all = append(all, &returningConn{handle: h, number: f.Target, until: int64(binary.LittleEndian.Uint64(f.Payload[at:])), not: c})
		}
	}
	ls.returning.add(all...)
}

// Settled handles the outcome of a handle that was sent over a link; it is for
// fdipc.Config.Resolved of every link. It returns false, and does nothing, for a handle that these
// Listeners did not send.
func (ls *Listeners) Settled(link *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) bool {
	x, ok := h.Tag.(*returningConn)
	if ok {
		ls.returning.settled(link, x, o)
	}
	return ok
}

// Park makes the connections of closed listeners go back to the listener process between two
// requests, from now on: see [netactor.ParkableConn]. It is for a worker that drains while others
// take its place.
func (ls *Listeners) Park() {
	ls.parking.Store(true)
	ls.parkAll()
}

// Parks reports whether Park was called.
func (ls *Listeners) Parks() bool { return ls.parking.Load() }

// parkAll does what Park has set for the connections that are open.
func (ls *Listeners) parkAll() {
	if !ls.Parks() {
		return
	}
	for _, c := range ls.conns.list() {
		if p, ok := c.(interface{ leaveIfDraining() }); ok {
			p.leaveIfDraining()
		}
	}
}

func (ls *Listeners) shutFrame(number uint64) {
	ls.mu.Lock()
	s := ls.byNumber[number]
	ls.mu.Unlock()
	if s != nil {
		s.closedByMaster()
	}
}

// directListener returns the listener of that number if this worker accepts on it itself.
func (ls *Listeners) directListener(number uint64) *directListener {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l, _ := ls.byNumber[number].(*directListener)
	return l
}

// renewFrame takes the new socket of a listener whose old one was shut down.
func (ls *Listeners) renewFrame(f *fdipc.Frame) {
	l := ls.directListener(f.Target)
	if l == nil || len(f.Handles) != 1 {
		return
	}
	ln, err := f.Handles[0].Listener()
	if err != nil { // it was shut down again, which the master will notice
		_ = f.Handles[0].Close()
		return
	}
	if ls.shortage.Lasts() {
		ls.shortage.End(ls.cfg.Logger, faults.HandlesArrived)
	}
	l.replace(ln)
}

// sendKind sends a frame without a payload. It ignores errors: they mean that the peer is gone, or
// will be cut off because it does not read.
func (ls *Listeners) sendKind(c *fdipc.Conn, k fdipc.Kind, number uint64) {
	ls.send(c, &fdipc.Frame{Kind: k, Target: number})
}

func (ls *Listeners) send(c *fdipc.Conn, f *fdipc.Frame) {
	if c != nil {
		_ = c.TrySend(f)
	}
}

// Adopt returns a listener over ln, which no other process knows. It is closed with the worker, and
// its connections are counted. Adopt takes ownership of ln.
func (ls *Listeners) Adopt(ln net.Listener) net.Listener {
	m := newDirectListener(ls, ln, ln.Addr(), 0, "")
	ls.keep(m)
	return m
}

// keep notes a socket that the master does not know, or closes it if all are closed; then it
// returns false.
func (ls *Listeners) keep(s openSocket) bool {
	ls.mu.Lock()
	closed := ls.closed
	if !closed {
		ls.unknownToMaster[s] = true
	}
	ls.mu.Unlock()
	if closed {
		s.closedByMaster()
	}
	return !closed
}

// forget removes a closed listener. It returns the link that the listener had joined, or nil.
func (ls *Listeners) forget(s openSocket, number uint64) *fdipc.Conn {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	delete(ls.unknownToMaster, s)
	if number == 0 || ls.byNumber[number] != s {
		return nil
	}
	delete(ls.byNumber, number)
	if !s.dispatched() {
		return nil
	}
	return ls.linkLocked()
}

// reporterLocked returns the reporter of a listener.
func (ls *Listeners) reporterLocked(number uint64) *reporter {
	r := ls.reporters[number]
	if r == nil {
		r = &reporter{number: number, joined: make(chan struct{})}
		ls.reporters[number] = r
	}
	return r
}

// dispatchedLocked returns the reporters of the open listeners that get offers.
func (ls *Listeners) dispatchedLocked() (all []*reporter) {
	for number, s := range ls.byNumber {
		if s.dispatched() {
			all = append(all, ls.reporterLocked(number))
		}
	}
	return all
}

// Joined waits until every listener that gets its connections from the listener process is in its
// rotation. If ctx ends first, it returns ctx's error. A worker that reports ready after that gets
// connections at once.
func (ls *Listeners) Joined(ctx context.Context) error {
	ls.mu.Lock()
	wait := ls.dispatchedLocked()
	ls.mu.Unlock()
	for _, r := range wait {
		select {
		case <-r.joined:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Conns returns the number of open connections: accepted from any listener here, and not yet
// closed. Those on their way back to the listener process count until it has claimed them.
func (ls *Listeners) Conns() int { return ls.conns.count() }

// Drain closes all listeners, so that the connections that they have not accepted go to other
// workers. It waits until every connection is closed. If ctx ends first, it returns ctx's error.
// Packet sockets stay open: the code that serves a packet socket drains and closes it. A later
// Listen or ListenPacket fails.
func (ls *Listeners) Drain(ctx context.Context) error {
	ls.closeAll(func(s openSocket) bool {
		_, packets := s.(*packetSocket)
		return !packets
	})
	return errors.Join(ls.conns.wait(ctx), ls.returning.wait(ctx))
}

// Fail declares that the worker has failed and will be replaced. The worker does not report its
// later closes to the master, nor those of the last 250 ms. So the sockets stay open for the
// replacement, as after the death of a process.
func (ls *Listeners) Fail() { ls.closes.fail() }

// reportClosed reports a close to the master, now or later; see pendingCloses.
func (ls *Listeners) reportClosed(number uint64) {
	ls.closes.add(number, isClosed(ls.cfg.Stopping))
}

// Cut closes every open connection, and each that is accepted later, as the end of a process does.
// It is for a worker that is a goroutine and has ended.
func (ls *Listeners) Cut() {
	ls.conns.closeAll()
	ls.returning.end()
}

// Close closes all listeners and packet sockets. It does not wait. A later Listen or ListenPacket
// fails.
func (ls *Listeners) Close() error {
	ls.closeAll(func(openSocket) bool { return true })
	return nil
}

func (ls *Listeners) closeAll(which func(openSocket) bool) {
	ls.mu.Lock()
	ls.closed = true
	all := slices.AppendSeq(slices.Collect(maps.Values(ls.byNumber)), maps.Keys(ls.unknownToMaster))
	ls.mu.Unlock()
	for _, s := range all {
		if which(s) {
			_ = s.Close()
		}
	}
	ls.closes.flush()
}

// HandlesLost handles a frame whose handles did not arrive, for fdipc.Config.NoFiles of the
// master's channel and of the link. It returns false if it does not handle the kind.
func (ls *Listeners) HandlesLost(c *fdipc.Conn, f *fdipc.Frame) bool {
	pause := ls.shortage.Begin(ls.cfg.Logger, faults.HandlesLost)
	switch f.Kind {
	case wire.KindOffer: // the listener process has them back, and offers us none for a while
	case wire.KindReply:
		if c == ls.cfg.Master {
			ls.replyFrame(f, true)
		}
	case wire.KindOpen:
		if c == ls.cfg.Master {
			ask := &fdipc.Frame{Kind: wire.KindBroken, Target: f.Target}
			time.AfterFunc(pause, func() { ls.send(c, ask) }) // the master sends it again; nothing happens after c has ended
		}
	default:
		return false
	}
	return true
}
