package netactor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/tracing"
)

// DispatcherConfig configures a Dispatcher. Zero fields mean the default.
type DispatcherConfig struct {
	Logger *slog.Logger    // default slog.Default
	Tracer *tracing.Tracer // default nil: no spans

	// Functions returns the user's functions of a listener, by [Request].Functions. It is called
	// once when the listener is opened here. Default: none.
	Functions func(string) Functions
}

// errClosed is what a Dispatcher answers once Close or Shutdown was called.
var errClosed = errors.New("netactor: closed")

// Dispatcher accepts the connections of any number of listeners and hands each
// to a worker. It is the whole of the listener process, or part of the master.
//
// It gets its sockets from the master by [KindOpen] and its workers by
// [Dispatcher.AddWorker]; both come to it through [Dispatcher.HandleFrame]. All
// methods may be called by any goroutine. None blocks but Shutdown and Close.
type Dispatcher struct {
	cfg        DispatcherConfig
	sourceHook func(*acceptSocket) // tests change a source before it is used

	after func(time.Duration) <-chan time.Time // tests have a clock of their own for back-offs

	mu           sync.Mutex // held for moments: never over a send or a system call
	balancer     *balancer
	acceptors    map[uint64]*acceptor
	master       *fdipc.Conn // the last to send an Open
	timer        *time.Timer // ends suspensions
	timerAt      time.Time   // when the timer fires; zero is never
	closed       bool
	logs         logLimiter  // of what peers can cause to be logged
	statsTimer   *time.Timer // tells the master the counts
	statsChanged bool        // there are some to tell

	shortage outage // of descriptors, for what the master sends

	peekers sync.WaitGroup // goroutines of listeners that peek
}

// NewDispatcher returns a Dispatcher without listeners and workers. It has no
// goroutine of its own; each listener has one, until it is shut.
func NewDispatcher(cfg DispatcherConfig) *Dispatcher {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	d := &Dispatcher{cfg: cfg, balancer: newBalancer(), acceptors: make(map[uint64]*acceptor)}
	d.timer = time.AfterFunc(time.Hour, d.endSuspensions)
	d.timer.Stop()
	d.statsTimer = time.AfterFunc(time.Hour, d.sendStats)
	d.statsTimer.Stop()
	d.logs.logger = cfg.Logger
	return d
}

// AddWorker makes a worker known, and the link over which it is to be offered
// connections. The link stays the caller's. It must have been made with
// Resolved calling [Dispatcher.Settled], and its Handler giving this package's
// kinds to HandleFrame. The worker gets nothing until it joins a listener.
//
// A frame of a worker that is not known yet has the same effect, so that it
// does not matter which comes first.
func (d *Dispatcher) AddWorker(w Worker, link *fdipc.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.workerLocked(w, link)
}

func (d *Dispatcher) workerLocked(w Worker, link *fdipc.Conn) *workerState {
	a := d.balancer.addWorker(w)
	if a.link == nil {
		a.link = link
	}
	return a
}

// RemoveLink says that a link to a worker has ended, while its process lives as far as is known. What it was
// offered over it has come back by then, or is claimed. The worker gets nothing until it joins by
// another link, which AddWorker gives; what it has open then is counted on. A link that is not the worker's
// present one is no news.
func (d *Dispatcher) RemoveLink(id uint64, link *fdipc.Conn) {
	var acts actions
	d.mu.Lock()
	w := d.balancer.workers[id]
	if w == nil || w.link != link {
		d.mu.Unlock()
		return
	}
	w.link = nil
	d.balancer.linkEnded(w)
	d.updateWorkerLocked(&acts, w, nil)
	d.mu.Unlock()
	d.run(&acts)
}

// RemoveWorker says that the process of a worker is gone: it was reaped. What
// it had not claimed comes back and is offered to others; what it had open is
// counted as died. It ends the link by [fdipc.Conn.PeerGone].
func (d *Dispatcher) RemoveWorker(id uint64) {
	d.mu.Lock()
	w := d.balancer.workers[id]
	if w == nil {
		d.mu.Unlock()
		return
	}
	d.balancer.removeWorker(w)
	var acts actions
	link := w.link
	d.updateWorkerLocked(&acts, w, nil)
	d.mu.Unlock()
	d.run(&acts)
	if link != nil {
		link.PeerGone()
	}
}

// HandleFrame handles a frame of this package's kinds from a peer; the master's
// ID is 0. It is false for a kind that is not handled here: then the frame is
// untouched. What a peer may not ask is refused and ignored.
func (d *Dispatcher) HandleFrame(from Worker, c *fdipc.Conn, f *fdipc.Frame) bool {
	if from.ID == 0 {
		switch f.Kind {
		case KindOpen:
			d.openFrame(c, f)
			return true
		case KindShut:
			d.shut(c, f.Target)
		case KindPause:
			d.pause(f.Target, true)
		case KindResume:
			d.pause(f.Target, false)
		case KindStats:
			_ = c.TrySend(&fdipc.Frame{Kind: KindStats, Target: f.Target, Payload: encode(d.Stats())})
		default:
			return false
		}
		f.Refuse(fdipc.ReasonUnknown)
		return true
	}
	if f.Kind == KindCounters {
		d.countersFrame(from.ID, f.Target, f)
		f.Refuse(fdipc.ReasonUnknown)
		return true
	}
	n, ok := parseCount8(f.Payload)
	switch f.Kind {
	case KindJoin:
		if ok {
			d.join(from, c, f.Target, n)
		}
	case KindLeave:
		d.leave(from.ID, f.Target)
	case KindDone:
		if ok {
			d.connsFinished(from.ID, f.Target, n)
		}
	case KindLoad:
		if ok {
			d.loadReported(from.ID, n)
		}
	default:
		return false
	}
	f.Refuse(fdipc.ReasonUnknown)
	return true
}

// openFrame starts to accept on a socket that the master sent. A number that is
// known already is left as it is, for the master may send its sockets again; unless it says that
// this one takes the place of the other.
func (d *Dispatcher) openFrame(c *fdipc.Conn, f *fdipc.Frame) {
	var o opening
	d.shortage.end(d.cfg.Logger, handlesArrived)
	err := decode(f.Payload, &o)
	if err == nil && (len(f.Handles) != 1 || !o.Policy.Dispatched() || o.Limits.Validate() != nil || o.Peek.Validate() != nil) {
		err = errors.New("netactor: malformed opening")
	}
	if err == nil {
		err = d.open(c, f.Target, o, f.Handles[0])
	}
	if err != nil {
		f.Refuse(fdipc.ReasonUnknown)
		if !errors.Is(err, errClosed) { // that is no news: the listener process ends
			d.cfg.Logger.Error("listener not opened", "listener", o.Name, "err", err)
		}
		_ = c.TrySend(&fdipc.Frame{Kind: KindBroken, Target: f.Target, Payload: []byte(err.Error())})
	}
}

// open claims the listening socket h and accepts on it.
func (d *Dispatcher) open(master *fdipc.Conn, number uint64, o opening, h *fdipc.Handle) error {
	d.mu.Lock()
	known := d.acceptors[number]
	useless := known != nil && !o.Renew
	if known == nil {
		d.master = master
	}
	d.mu.Unlock()
	if useless {
		h.Refuse(ReasonClosed)
		return nil
	}
	var f Functions
	if o.Functions != "" && d.cfg.Functions != nil {
		f = d.cfg.Functions(o.Functions)
	}
	if o.Policy == Custom && f.Picker == nil {
		d.cfg.Logger.Error("this process has no picker for the listener, using round-robin", "listener", o.Name, "functions", o.Functions)
	}
	if o.Peek.By == PeekFirst && f.First == nil {
		d.cfg.Logger.Error("this process has no function for the listener's first bytes, using addresses", "listener", o.Name, "functions", o.Functions)
		o.Peek.By = PeekNone
	}
	src, err := newAcceptSocket(h)
	if err != nil {
		return fmt.Errorf("netactor: open: %w", err)
	}
	if o.Foreign {
		src.setForeign()
	}
	src.askCredentials = o.Credentials
	if d.sourceHook != nil {
		d.sourceHook(src)
	}
	if known != nil {
		d.mu.Lock()
		stale, old := known.replacement, known.src
		if known.draining || d.closed {
			stale, src = src, nil // it ends: nobody would take it
		}
		known.replacement = src
		known.wakeLocked()
		d.mu.Unlock()
		if stale != nil {
			stale.close()
		}
		old.interrupt() // it may wait for what never comes
		return nil
	}
	a := newAcceptor(d, o, src)
	if peeks(o.Peek) {
		if a.peeker, err = newPeeker(a, o.Peek, f.First); err != nil {
			src.close()
			return fmt.Errorf("netactor: open: %w", err)
		}
	}
	d.mu.Lock()
	if !d.closed {
		a.listener = d.balancer.addListener(number, o, f)
	}
	if a.listener == nil {
		d.mu.Unlock()
		src.close()
		a.peeker.close()
		return errClosed
	}
	d.acceptors[number] = a
	if a.peeker != nil {
		d.peekers.Go(a.peeker.run) // ends when the listener has, and nobody's first bytes are waited for
	}
	d.mu.Unlock()
	d.stopReports(a.listener)
	go a.run() // owned by the acceptor: ends after shut, which Shutdown and Close wait for
	return nil
}

func (d *Dispatcher) join(w Worker, link *fdipc.Conn, number, open uint64) {
	credit := link.Credit() // known by now: the link's handshake is over
	d.mu.Lock()
	a := d.workerLocked(w, link)
	a.credit = max(a.credit, credit)
	if a.link != link {
		d.mu.Unlock()
		return
	}
	ok := d.balancer.join(a, number, open)
	var acts actions
	d.updateWorkerLocked(&acts, a, nil)
	d.mu.Unlock()
	if ok {
		_ = link.TrySend(&fdipc.Frame{Kind: KindJoin, Target: number})
	} else {
		d.logs.warn("worker joins too many listeners", "worker", w.Name)
	}
	d.run(&acts)
}

func (d *Dispatcher) leave(id, number uint64) {
	var acts actions
	d.mu.Lock()
	if w := d.balancer.workers[id]; w != nil {
		d.balancer.leave(w.memberships[number])
		d.updateWorkerLocked(&acts, w, nil)
	}
	d.mu.Unlock()
	d.run(&acts)
}

func (d *Dispatcher) connsFinished(id, number, total uint64) {
	d.mu.Lock()
	w := d.balancer.workers[id]
	if w == nil {
		d.mu.Unlock()
		return
	}
	var acts actions
	if m, all := d.balancer.finished(w, number, total); all {
		d.updateWorkerLocked(&acts, w, nil)
	} else if m != nil {
		d.updateListenerLocked(&acts, m.listener)
	}
	d.mu.Unlock()
	d.run(&acts)
}

func (d *Dispatcher) loadReported(id, load uint64) {
	var acts actions
	d.mu.Lock()
	if w := d.balancer.workers[id]; w != nil {
		d.balancer.setLoad(w, int(min(load, 1<<30)))
		d.updateWorkerLocked(&acts, w, nil)
	}
	d.mu.Unlock()
	d.run(&acts)
}

func (d *Dispatcher) pause(number uint64, paused bool) {
	var acts actions
	d.mu.Lock()
	if a := d.acceptors[number]; a != nil && !a.draining {
		a.listener.paused = paused
		d.updateListenerLocked(&acts, a.listener)
	}
	d.mu.Unlock()
	d.run(&acts)
}

// count changes a count.
func (d *Dispatcher) count(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// reportBroken reports a listener whose socket does not accept any more.
func (d *Dispatcher) reportBroken(a *acceptor, err error) {
	d.mu.Lock()
	master, quiet := d.master, a.quit || a.draining
	d.mu.Unlock()
	if !quiet && master != nil { // who says so to people
		_ = master.TrySend(&fdipc.Frame{Kind: KindBroken, Target: a.listener.number, Payload: []byte(err.Error())})
	}
}

// shut drains the backlog of one listener and closes its socket, in the
// background. What was accepted goes on to the workers.
func (d *Dispatcher) shut(c *fdipc.Conn, number uint64) {
	d.mu.Lock()
	a := d.acceptors[number]
	var src *acceptSocket
	if a != nil {
		src = a.src
		if !a.ended {
			a.notifyClosed = c
			a.drainLocked()
		}
	}
	d.mu.Unlock()
	if a == nil {
		_ = c.TrySend(&fdipc.Frame{Kind: KindShutAck, Target: number})
		return
	}
	src.interrupt()
}

// acceptorEnded is told by an acceptor that its socket is closed.
func (d *Dispatcher) acceptorEnded(a *acceptor) {
	var acts actions
	d.mu.Lock()
	a.ended = true
	c := a.notifyClosed
	d.updateListenerLocked(&acts, a.listener)
	d.mu.Unlock()
	a.peeker.seal()
	close(a.closed)
	if c != nil {
		_ = c.TrySend(&fdipc.Frame{Kind: KindShutAck, Target: a.listener.number})
	}
	d.run(&acts)
}

// Shutdown stops all listeners: each takes what is in its backlog at that
// moment, as fast as the workers have room, and closes its socket; then what
// was accepted is waited for, until every connection is claimed. When ctx ends,
// what is left is closed, counted as dropped, and ctx's error returned. Workers
// that are to have the last connections must still be there.
func (d *Dispatcher) Shutdown(ctx context.Context) error {
	for _, a := range d.stop((*acceptor).drainLocked) {
		select {
		case <-a.idle:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("netactor: shutdown: %w", ctx.Err()), d.Close())
		}
	}
	return d.Close()
}

// Close ends all listeners at once and waits for their goroutines. Connections
// that wait for a worker are closed, and those that come back later.
func (d *Dispatcher) Close() error {
	all := d.stop((*acceptor).quitLocked)
	var acts actions
	d.mu.Lock()
	for _, a := range all {
		d.updateListenerLocked(&acts, a.listener)
	}
	d.mu.Unlock()
	d.run(&acts)
	for _, a := range all {
		<-a.closed
	}
	d.peekers.Wait()
	d.timer.Stop()
	d.statsTimer.Stop()
	return nil
}

// stop lets no more listeners in, and calls f on those that are there.
func (d *Dispatcher) stop(f func(*acceptor)) []*acceptor {
	d.mu.Lock()
	d.closed = true
	all := make([]*acceptor, 0, len(d.acceptors))
	sources := make([]*acceptSocket, 0, len(d.acceptors))
	for _, a := range d.acceptors {
		f(a)
		all, sources = append(all, a), append(sources, a.src)
	}
	d.mu.Unlock()
	for _, s := range sources {
		s.interrupt()
	}
	return all
}

// HandlesLost takes a frame whose handles did not arrive, for fdipc.Config.NoFiles of the master's
// channel. It is false for a kind that is not handled here.
func (d *Dispatcher) HandlesLost(c *fdipc.Conn, f *fdipc.Frame) bool {
	if f.Kind != KindOpen {
		return f.Kind == KindCounters // without it a worker's ends are known by its frames
	}
	pause := d.shortage.begin(d.cfg.Logger, handlesLost)
	ask := &fdipc.Frame{Kind: KindBroken, Target: f.Target}
	time.AfterFunc(pause, func() { _ = c.TrySend(ask) }) // and gets it anew; nothing happens once c has ended
	return true
}
