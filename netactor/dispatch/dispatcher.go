package dispatch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/faults"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
	"github.com/coppice-go/coppice/netactor/internal/wire"
	"github.com/coppice-go/coppice/tracing"
)

// Config configures a Dispatcher. Zero fields mean the default.
type Config struct {
	Logger *slog.Logger    // default slog.Default
	Tracer *tracing.Tracer // default nil: no spans

	// Functions returns the user's functions of a listener, by [netactor.Request].Functions. It is
	// called once when the listener is opened here. Default: none.
	Functions func(string) netactor.Functions

	// Refused is told how many connections of a key of Guard were turned away since it was told
	// last, once a second at most for each key. It may be called by any goroutine and must not
	// block. Default: nobody.
	Refused func(source, key string, n uint64)
}

// errClosed is the error of a Dispatcher after Close or Shutdown.
var errClosed = errors.New("netactor: closed")

// Dispatcher accepts the connections of any number of listeners and hands each to a worker. It is
// the whole of the listener process, or part of the master.
//
// The master sends it sockets by wire.KindOpen, and [Dispatcher.AddWorker] gives it workers. The
// frames of both come through [Dispatcher.HandleFrame]. Any goroutine may call any method. Only
// Shutdown and Close block.
type Dispatcher struct {
	cfg   Config
	hooks inspect.DispatcherHooks // of tests

	mu           sync.Mutex // held briefly: never during a send or a system call
	balancer     *balance.Balancer
	acceptors    map[uint64]*acceptor
	master       *fdipc.Conn // the last to send an Open
	timer        *time.Timer // ends suspensions
	timerAt      time.Time   // when the timer fires; zero is never
	closed       bool
	retired      bool              // by Retire
	logs         faults.LogLimiter // limits the log lines that other processes can cause
	statsTimer   *time.Timer       // sends the counts to the master
	statsChanged bool              // the counts changed since they were last sent

	shortage faults.Outage // no descriptor was free for a socket from the master

	guarded firstKeys

	lot     *parkingLot    // nil until a worker gives a connection back
	waiters sync.WaitGroup // goroutines of lot, and of listeners that peek
}

// New returns a Dispatcher without listeners and workers. It has no goroutine; each listener has
// one until it is shut.
func New(cfg Config) *Dispatcher {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	d := &Dispatcher{cfg: cfg, balancer: balance.New(), acceptors: make(map[uint64]*acceptor)}
	d.timer = time.AfterFunc(time.Hour, d.endSuspensions)
	d.timer.Stop()
	d.statsTimer = time.AfterFunc(time.Hour, d.sendStats)
	d.statsTimer.Stop()
	d.logs.Logger = cfg.Logger
	return d
}

// AddWorker adds a worker, and the link over which it is offered connections. The caller still owns
// the link. The link must have been made with Resolved calling [Dispatcher.Settled], and a Handler
// that passes this package's kinds to HandleFrame. The worker gets no offers until it joins a
// listener.
//
// A Join from an unknown worker has the same effect, so the order of the two does not matter.
func (d *Dispatcher) AddWorker(w netactor.Worker, link *fdipc.Conn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.workerLocked(w, link)
}

func (d *Dispatcher) workerLocked(w netactor.Worker, link *fdipc.Conn) *balance.WorkerState {
	a := d.balancer.AddWorker(w)
	if a.Link == nil {
		a.Link = link
	}
	return a
}

// RemoveLink reports that a link to a worker has ended while its process, as far as is known,
// lives. By then each offer sent over the link has come back or is claimed. The worker gets no
// offers until it joins over another link, from AddWorker; its open connections are still counted
// then. RemoveLink ignores a link that is not the worker's present one.
func (d *Dispatcher) RemoveLink(id uint64, link *fdipc.Conn) {
	var acts actions
	d.mu.Lock()
	w := d.balancer.Workers[id]
	if w == nil || w.Link != link {
		d.mu.Unlock()
		return
	}
	w.Link = nil
	d.balancer.LinkEnded(w)
	d.updateWorkerLocked(&acts, w, nil)
	d.mu.Unlock()
	d.run(&acts)
}

// RemoveWorker reports that the process of a worker is gone: it was reaped. The connections that it
// had not claimed come back and are offered to others; those that it had open are counted as died.
// RemoveWorker ends the link by [fdipc.Conn.PeerGone].
func (d *Dispatcher) RemoveWorker(id uint64) {
	d.mu.Lock()
	w := d.balancer.Workers[id]
	if w == nil {
		d.mu.Unlock()
		return
	}
	d.balancer.RemoveWorker(w)
	var acts actions
	link := w.Link
	d.updateWorkerLocked(&acts, w, nil)
	d.mu.Unlock()
	d.run(&acts)
	if link != nil {
		link.PeerGone()
	}
}

// HandleFrame handles a frame of this package's kinds from another process; the master's ID is 0.
// It returns false for a kind that it does not handle, and then leaves the frame untouched. It
// refuses and ignores a request that the sender may not make.
func (d *Dispatcher) HandleFrame(from netactor.Worker, c *fdipc.Conn, f *fdipc.Frame) bool {
	if from.ID == 0 {
		switch f.Kind {
		case wire.KindOpen:
			d.openFrame(c, f)
			return true
		case wire.KindShut:
			d.shut(c, f.Target)
		case wire.KindPause:
			d.pause(f.Target, true, len(f.Payload) > 0 && f.Payload[0] == wire.PauseRefuses)
		case wire.KindResume:
			d.pause(f.Target, false, false)
		case wire.KindStats:
			_ = c.TrySend(&fdipc.Frame{Kind: wire.KindStats, Target: f.Target, Payload: wire.Encode(d.Stats())})
		default:
			return false
		}
		f.Refuse(fdipc.ReasonUnknown)
		return true
	}
	switch f.Kind {
	case wire.KindCounters:
		d.countersFrame(from.ID, f.Target, f)
		f.Refuse(fdipc.ReasonUnknown)
		return true
	case wire.KindPark:
		f.Refuse(d.parkFrame(from, f))
		return true
	}
	n, ok := wire.ParseCount(f.Payload)
	switch f.Kind {
	case wire.KindJoin:
		if ok {
			d.join(from, c, f.Target, n)
		}
	case wire.KindLeave:
		d.leave(from.ID, f.Target)
	case wire.KindDone:
		if ok {
			d.connsFinished(from.ID, f.Target, n)
		}
	case wire.KindLoad:
		if ok {
			d.loadReported(from.ID, n)
		}
	default:
		return false
	}
	f.Refuse(fdipc.ReasonUnknown)
	return true
}

// openFrame starts to accept on a socket from the master. It ignores a number that is open already,
// because the master may send its sockets again, unless Renew is set: then this socket replaces the
// other.
func (d *Dispatcher) openFrame(c *fdipc.Conn, f *fdipc.Frame) {
	var o wire.Opening
	d.shortage.End(d.cfg.Logger, faults.HandlesArrived)
	err := wire.Decode(f.Payload, &o)
	if err == nil && (len(f.Handles) != 1 || !o.Policy.Dispatched() || o.Limits.Validate() != nil || o.Peek.Validate() != nil) {
		err = errors.New("netactor: malformed opening")
	}
	if err == nil {
		err = d.open(c, f.Target, o, f.Handles[0])
	}
	if err != nil {
		f.Refuse(fdipc.ReasonUnknown)
		if !errors.Is(err, errClosed) { // errClosed is expected: the listener process ends
			d.cfg.Logger.Error("listener not opened", "listener", o.Name, "err", err)
		}
		_ = c.TrySend(&fdipc.Frame{Kind: wire.KindBroken, Target: f.Target, Payload: []byte(err.Error())})
	}
}

// open claims the listening socket h and accepts on it.
func (d *Dispatcher) open(master *fdipc.Conn, number uint64, o wire.Opening, h *fdipc.Handle) error {
	d.mu.Lock()
	known := d.acceptors[number]
	useless := known != nil && !o.Renew
	if known == nil {
		d.master = master
	}
	d.mu.Unlock()
	if useless {
		h.Refuse(wire.ReasonClosed)
		return nil
	}
	var f netactor.Functions
	if o.Functions != "" && d.cfg.Functions != nil {
		f = d.cfg.Functions(o.Functions)
	}
	if o.Policy == netactor.Custom && f.Picker == nil {
		d.cfg.Logger.Error("this process has no picker for the listener, using round-robin", "listener", o.Name, "functions", o.Functions)
	}
	if o.Peek.By == netactor.PeekFirst && f.First == nil {
		d.cfg.Logger.Error("this process has no function for the listener's first bytes, using addresses", "listener", o.Name, "functions", o.Functions)
		o.Peek.By = netactor.PeekNone
	}
	src, err := newAcceptSocket(h)
	if err != nil {
		return fmt.Errorf("netactor: open: %w", err)
	}
	if o.Foreign {
		src.setForeign()
	}
	src.askCredentials = o.Credentials
	src.setHooks(d.hooks)
	if known != nil {
		d.mu.Lock()
		stale, old := known.replacement, known.src
		if known.draining || d.closed {
			stale, src = src, nil // the acceptor ends, and would not use it
		}
		known.replacement = src
		known.wakeLocked()
		d.mu.Unlock()
		if stale != nil {
			stale.close()
		}
		old.interrupt() // its accept may wait for ever
		return nil
	}
	a := newAcceptor(d, o, src)
	a.poisonAnswer = f.PoisonAnswer
	if peeks(o.Peek) || f.PoisonKey != nil {
		if a.peeker, err = newPeeker(a, o.Peek, f); err != nil {
			src.close()
			return fmt.Errorf("netactor: open: %w", err)
		}
	}
	d.mu.Lock()
	if !d.closed {
		a.listener = d.balancer.AddListener(number, o, f)
	}
	if a.listener == nil {
		d.mu.Unlock()
		src.close()
		a.peeker.close()
		return errClosed
	}
	d.acceptors[number] = a
	if a.peeker != nil {
		d.waiters.Go(a.peeker.run) // ends when the listener has ended and no connection is peeking
	}
	d.statsChangedLocked() // its workers may have joined before
	d.mu.Unlock()
	d.stopReports(a.listener)
	go a.run() // owned by the acceptor: ends after shut; Shutdown and Close wait for it
	return nil
}

func (d *Dispatcher) join(w netactor.Worker, link *fdipc.Conn, number, open uint64) {
	credit := link.Credit() // known: the link's handshake is over
	d.mu.Lock()
	a := d.workerLocked(w, link)
	a.Credit = max(a.Credit, credit)
	if a.Link != link {
		d.mu.Unlock()
		return
	}
	ok := d.balancer.Join(a, number, open)
	var acts actions
	d.updateWorkerLocked(&acts, a, nil)
	d.mu.Unlock()
	if ok {
		_ = link.TrySend(&fdipc.Frame{Kind: wire.KindJoin, Target: number})
	} else {
		d.logs.Warn("worker joins too many listeners", "worker", w.Name)
	}
	d.run(&acts)
}

func (d *Dispatcher) leave(id, number uint64) {
	var acts actions
	d.mu.Lock()
	if w := d.balancer.Workers[id]; w != nil {
		d.balancer.Leave(w.Memberships[number])
		d.updateWorkerLocked(&acts, w, nil)
	}
	d.mu.Unlock()
	d.run(&acts)
}

func (d *Dispatcher) connsFinished(id, number, total uint64) {
	d.mu.Lock()
	w := d.balancer.Workers[id]
	if w == nil {
		d.mu.Unlock()
		return
	}
	var acts actions
	if m, all := d.balancer.Finished(w, number, total); all {
		d.updateWorkerLocked(&acts, w, nil)
	} else if m != nil {
		d.updateListenerLocked(&acts, m.Listener)
	}
	d.mu.Unlock()
	d.run(&acts)
}

func (d *Dispatcher) loadReported(id, load uint64) {
	var acts actions
	d.mu.Lock()
	if w := d.balancer.Workers[id]; w != nil {
		d.balancer.SetLoad(w, int(min(load, 1<<30)))
		d.updateWorkerLocked(&acts, w, nil)
	}
	d.mu.Unlock()
	d.run(&acts)
}

func (d *Dispatcher) pause(number uint64, paused, refuses bool) {
	var acts actions
	d.mu.Lock()
	if a := d.acceptors[number]; a != nil && !a.draining {
		a.listener.Paused, a.listener.Refuses = paused, refuses
		d.updateListenerLocked(&acts, a.listener)
	}
	d.mu.Unlock()
	d.run(&acts)
}

// count calls f, which changes a count, with the lock held.
func (d *Dispatcher) count(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
}

// reportBroken reports to the master a listener whose socket does not accept any more.
func (d *Dispatcher) reportBroken(a *acceptor, err error) {
	d.mu.Lock()
	master, quiet := d.master, a.quit || a.draining
	d.mu.Unlock()
	if !quiet && master != nil { // the master logs it
		_ = master.TrySend(&fdipc.Frame{Kind: wire.KindBroken, Target: a.listener.Number, Payload: []byte(err.Error())})
	}
}

// shut drains the backlog of one listener and closes its socket, in the background. Accepted
// connections still go to the workers.
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
		_ = c.TrySend(&fdipc.Frame{Kind: wire.KindShutAck, Target: number})
		return
	}
	src.interrupt()
}

// acceptorEnded records that an acceptor has closed its socket.
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
		_ = c.TrySend(&fdipc.Frame{Kind: wire.KindShutAck, Target: a.listener.Number})
	}
	d.run(&acts)
}

// Shutdown stops all listeners. Each accepts what is in its backlog at that moment, as fast as the
// workers have room, and closes its socket. Shutdown then waits until every accepted connection is
// claimed. If ctx ends first, it closes the rest, which is counted as dropped, and returns ctx's
// error. The workers that are to have the last connections must still be there.
func (d *Dispatcher) Shutdown(ctx context.Context) error {
	return d.shutdown(ctx, (*acceptor).drainLocked)
}

// Retire is Shutdown for a Dispatcher whose successor accepts on the same sockets: it leaves the
// backlogs to that one.
func (d *Dispatcher) Retire(ctx context.Context) error {
	d.mu.Lock()
	d.retired = true
	d.mu.Unlock()
	return d.shutdown(ctx, (*acceptor).retireLocked)
}

func (d *Dispatcher) shutdown(ctx context.Context, f func(*acceptor)) error {
	for _, a := range d.stop(f) {
		select {
		case <-a.idle:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("netactor: shutdown: %w", ctx.Err()), d.Close())
		}
	}
	return d.Close()
}

// Close ends all listeners at once and waits for their goroutines. It closes the connections that
// wait for a worker, and each that comes back later.
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
	d.mu.Lock()
	lot := d.lot
	d.mu.Unlock()
	lot.close()
	d.waiters.Wait()
	d.timer.Stop()
	d.statsTimer.Stop()
	return nil
}

// stop refuses new listeners, and calls f for each open one.
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

// HandlesLost handles a frame whose handles did not arrive, for fdipc.Config.NoFiles of the
// master's channel. It returns false for a kind that it does not handle.
func (d *Dispatcher) HandlesLost(c *fdipc.Conn, f *fdipc.Frame) bool {
	if f.Kind != wire.KindOpen {
		return f.Kind == wire.KindCounters // without the page the worker reports by frames
	}
	pause := d.shortage.Begin(d.cfg.Logger, faults.HandlesLost)
	ask := &fdipc.Frame{Kind: wire.KindBroken, Target: f.Target}
	time.AfterFunc(pause, func() { _ = c.TrySend(ask) }) // the master sends the socket again; no effect once c has ended
	return true
}
