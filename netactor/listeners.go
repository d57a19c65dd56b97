package netactor

import (
	"context"
	"log/slog"
	"net"
	"sync"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/tracing"
)

// ListenersConfig configures a worker's Listeners. Zero fields mean the default.
type ListenersConfig struct {
	Master *fdipc.Conn     // whom to ask; nil: nobody, then Listen is net.Listen
	Pool   string          // the worker's pool, for spans
	Logger *slog.Logger    // default slog.Default
	Tracer *tracing.Tracer // default nil: no spans

	// Stopping is closed when the worker is asked to stop. Of what it closes from then on
	// the master hears at once; of what it closes before, when it has lived on for a quarter
	// of a second: a worker that fails may close an instant before. nil: it is never asked.
	Stopping <-chan struct{}
}

// Listeners is the worker's side: it asks the master for listeners, takes the
// connections that the listener process offers, and counts what is open, so
// that the worker can be drained. All methods may be called by any goroutine.
type Listeners struct {
	cfg   ListenersConfig
	conns *openConns

	mu       sync.Mutex
	link     *fdipc.Conn // to the listener process; nil without
	seq      uint64
	asks     map[uint64]asking // requests that wait for a reply
	byNumber map[uint64]member // what the master gave us
	own      map[member]bool   // what nobody else knows of
	tallies  map[uint64]*tally // by number; they stay, see tally
	ordinals map[string]map[int]bool
	closed   bool
	load     int64 // the worker's own word on it; -1 when it gave none

	starved starved

	closes closes // that the master is to hear of
}

// member is one open listener, or packet socket, of a worker.
type member interface {
	Close() error
	shut() // the master has closed it
	// joins reports whether its connections come from the listener process.
	joins() bool
}

// NewListeners returns a worker's Listeners, without any yet.
func NewListeners(cfg ListenersConfig) *Listeners {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	ls := &Listeners{
		cfg:      cfg,
		conns:    newOpenConns(),
		asks:     make(map[uint64]asking),
		byNumber: make(map[uint64]member),
		own:      make(map[member]bool),
		tallies:  make(map[uint64]*tally),
		ordinals: make(map[string]map[int]bool),
		load:     -1,
	}
	ls.closes.tell = func(number uint64) { ls.tell(cfg.Master, KindClosed, number) }
	return ls
}

// AddLink says that a listener process is there, with the Conn to it, at the
// start and after each restart. Every listener joins by it. The link stays the
// caller's; its Handler gives this package's kinds to [Listeners.HandleFrame].
// What came over an earlier link and waits to be accepted stays acceptable.
func (ls *Listeners) AddLink(c *fdipc.Conn) {
	ls.mu.Lock()
	ls.link = c
	load := ls.load
	var join []*tally
	for number, m := range ls.byNumber {
		if m.joins() {
			join = append(join, ls.tallyLocked(number))
		}
	}
	ls.mu.Unlock()
	if load >= 0 {
		_ = c.TrySend(&fdipc.Frame{Kind: KindLoad, Payload: count8(uint64(load))})
	}
	for _, t := range join {
		t.join(c)
	}
}

// Report says how much this worker has to do, for LeastLoaded, in a unit of its own choice:
// the worker with the least gets the next connection. It replaces the number of connections
// as what is compared. Until the next report each connection that comes counts 1 more, and each
// that ends 1 less; so the unit should be about one connection's worth. Reports are to be
// given now and then, at most some times a second. A negative load counts as 0.
func (ls *Listeners) Report(load int) {
	ls.mu.Lock()
	ls.load = max(0, int64(load))
	link := ls.link
	ls.mu.Unlock()
	if link != nil {
		_ = link.TrySend(&fdipc.Frame{Kind: KindLoad, Payload: count8(uint64(max(0, load)))})
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
			ls.replyFrame(f, false)
			return true
		}
	case KindShut:
		if c == ls.cfg.Master {
			ls.shutFrame(f.Target)
		}
	case KindOpen:
		if c == ls.cfg.Master {
			ls.renewFrame(f)
		}
	case KindPause, KindResume:
		if l := ls.ownOf(f.Target); l != nil && c == ls.cfg.Master {
			l.pause(f.Kind == KindPause)
		}
	case KindJoin:
		ls.mu.Lock()
		t := ls.tallies[f.Target]
		ls.mu.Unlock()
		if t != nil && c != ls.cfg.Master {
			t.inRotation()
		}
	case KindSheet:
		ls.mu.Lock()
		t := ls.tallies[f.Target]
		ls.mu.Unlock()
		if t != nil && c != ls.cfg.Master {
			t.quieten(c)
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
	ls.starved.arrived(func(t *trouble) { t.over(ls.cfg.Logger, handlesArrived) })
	l.push(c, f.Handles, f.Payload)
}

func (ls *Listeners) shutFrame(number uint64) {
	ls.mu.Lock()
	m := ls.byNumber[number]
	ls.mu.Unlock()
	if m != nil {
		m.shut()
	}
}

// ownOf returns the listener of that number if this worker accepts on it itself.
func (ls *Listeners) ownOf(number uint64) *ownListener {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	l, _ := ls.byNumber[number].(*ownListener)
	return l
}

// renewFrame takes the socket of a listener again, after the one before was shut down.
func (ls *Listeners) renewFrame(f *fdipc.Frame) {
	l := ls.ownOf(f.Target)
	if l == nil || len(f.Handles) != 1 {
		return
	}
	ln, err := f.Handles[0].Listener()
	if err != nil { // it was shut down once more, which the master will notice
		_ = f.Handles[0].Close()
		return
	}
	ls.starved.arrived(func(t *trouble) { t.over(ls.cfg.Logger, handlesArrived) })
	l.replace(ln)
}

// tell sends a frame without a payload, if that is possible. What cannot be
// sent need not be: the peer is gone, or is cut off for not reading.
func (ls *Listeners) tell(c *fdipc.Conn, k fdipc.Kind, number uint64) {
	ls.send(c, &fdipc.Frame{Kind: k, Target: number})
}

func (ls *Listeners) send(c *fdipc.Conn, f *fdipc.Frame) {
	if c != nil {
		_ = c.TrySend(f)
	}
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
func (ls *Listeners) Conns() int { return ls.conns.count() }

// Drain closes all listeners, so that what they have not accepted goes to other
// workers, and waits until every connection is closed, or ctx ends; then it
// returns ctx's error. Packet sockets stay open: who serves one drains by it, and closes it.
// A later Listen or ListenPacket fails.
func (ls *Listeners) Drain(ctx context.Context) error {
	ls.closeAll(func(m member) bool {
		_, packets := m.(*packetMember)
		return !packets
	})
	return ls.conns.wait(ctx)
}

// Fail says that the worker ends by itself and is to be replaced: what is closed from now
// on, or was just now, the master does not count as closed. Like the death of a process it leaves the
// sockets open, for the replacement.
func (ls *Listeners) Fail() { ls.closes.fail() }

// sayClosed tells the master of a close, now or later.
func (ls *Listeners) sayClosed(number uint64) {
	now := false
	select {
	case <-ls.cfg.Stopping:
		now = true
	default:
	}
	ls.closes.add(number, now)
}

// Cut closes every connection that is open, and each that is accepted from now on: as the end
// of a process does, of which nothing is left. It is for a worker that is a goroutine and has ended.
func (ls *Listeners) Cut() { ls.conns.cut() }

// Close closes all listeners and packet sockets. It does not wait. A later Listen or ListenPacket
// fails.
func (ls *Listeners) Close() error {
	ls.closeAll(func(member) bool { return true })
	return nil
}

func (ls *Listeners) closeAll(which func(member) bool) {
	ls.mu.Lock()
	ls.closed = true
	var all []member
	for _, m := range ls.byNumber {
		if which(m) {
			all = append(all, m)
		}
	}
	for m := range ls.own {
		if which(m) {
			all = append(all, m)
		}
	}
	ls.mu.Unlock()
	for _, m := range all {
		_ = m.Close()
	}
	ls.closes.flush()
}
