package coppice

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/liveness"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// poolWorker is one worker of a pool, from its launch to its end, as the master sees it: the one
// record of it. The listener process is one too. run owns it, and is the one goroutine that waits
// for its end; others ask it to end, and read what stands below as said there.
type poolWorker struct {
	driver *poolDriver // of its pool
	id     pool.WorkerSeq
	gen    *generation

	// Ends when the worker is not wanted any more, or has ended. A start that waits for what the
	// master lacks ends with it.
	wanted  context.Context
	dismiss context.CancelFunc

	toSlot chan int // a spare's slot; capacity 1

	// Guarded by poolDriver.mu.
	why           pool.Purpose // of its launch, or of its assignment to a slot
	startedAt     time.Time    // launched, or assigned
	slot          int
	launched      bool // what launch sets is set
	hadSlot       bool // it is, or was, a slot's worker
	stopSignalled bool // a signal from outside tells it to end
	drainAsked    time.Time
	drainWhy      pool.Purpose

	// Set by run before launched, except for err.
	hello     childproto.Hello
	config    *fdipc.Handle // a long configuration for a process; sendHello's
	conn      *fdipc.Conn
	backend   backend
	telemetry tracing.ChildTelemetry // ended by finish, or by launch if there is no backend

	assigned atomic.Pointer[assignment] // its place; a spare's changes once

	// Guarded by children.mu.
	placed bool       // a worker that knows its place
	link   linkHealth // of a worker, to the listener process

	handshaken  chan struct{} // closed when the channel's handshake is over: descriptors can be offered
	attached    chan struct{} // closed when its hello is sent and it is known to the others
	standby     chan struct{} // of a spare: closed when it waits for a slot
	setStandby  func()
	ready       chan struct{} // closed when it says that it does its work
	setReady    func()
	linkedToAll chan struct{} // of the listener process: closed when it has its links and sockets, or never will
	drained     chan struct{} // of the listener process: closed when nothing is unclaimed any more
	setDrained  func()

	askedStop    atomic.Bool
	retired      atomic.Bool                // nothing takes its place, or another has it: its end leaves no gap
	killed       atomic.Pointer[KillReason] // why the master did; nil = it did not
	hung         atomic.Pointer[error]      // why, when it hangs and is ended for it
	channelErr   atomic.Pointer[error]      // what ended its channel, if not the worker
	exitNotice   atomic.Pointer[childproto.ExitNotice]
	forced       atomic.Int64  // connections that its drain has cut at its deadline
	relinked     atomic.Int64  // times that it got another link for a broken one
	framesLost   atomic.Uint64 // frames whose descriptors the master had no room for
	badFrames    atomic.Uint64 // frames that could not be understood
	stopSignal   sync.Once     // the first signal from outside counts
	requestsDone sync.Once     // the first word that it has had its share of requests counts
	heartbeats   liveness.Answers
	stacks       fdipc.Calls[struct{}, string]

	life    context.Context // ends when the worker has ended and is forgotten
	endLife context.CancelFunc

	// Set before life ends.
	reason supervisor.Reason
	exit   Exit
	err    error // why it did not become ready; guarded by poolDriver.mu
}

func newPoolWorker(c *poolDriver, e pool.Effect) *poolWorker {
	w := &poolWorker{
		driver: c, id: e.Worker, gen: c.generations.use(int(e.Gen)), why: e.Why, slot: e.Slot, startedAt: time.Now(), toSlot: make(chan int, 1),
		handshaken: make(chan struct{}), attached: make(chan struct{}), standby: make(chan struct{}), ready: make(chan struct{}),
		linkedToAll: make(chan struct{}), drained: make(chan struct{}),
	}
	w.wanted, w.dismiss = context.WithCancel(c.alive)
	w.life, w.endLife = context.WithCancel(context.Background())
	w.setStandby = sync.OnceFunc(func() { close(w.standby) })
	w.setReady = sync.OnceFunc(func() { close(w.ready) })
	w.setDrained = sync.OnceFunc(func() { close(w.drained) })
	return w
}

// name is the worker's registered name, or what it has before it has one.
func (w *poolWorker) name() string { return w.assigned.Load().name }

// sibling is what the others are told of the worker.
func (w *poolWorker) sibling() childproto.Sibling {
	h, at := w.hello, w.assigned.Load()
	h.Name, h.Slot, h.Incarnation = at.name, at.slot, at.incarnation
	return h.Sibling()
}

// address is the worker's actor address.
func (w *poolWorker) address() string { return strconv.Itoa(w.hello.ID) }

// info is what the child is now.
func (w *poolWorker) info() info {
	at := w.assigned.Load()
	return info{string(w.hello.Role), at.name, w.hello.ID, w.backend.pid(), w.hello.Generation, at.incarnation, int(w.relinked.Load())}
}

// event completes ev with the worker's names and numbers.
func (w *poolWorker) event(ev PoolEvent) PoolEvent {
	i := w.info()
	ev.Worker, ev.ID, ev.PID, ev.Generation = i.name, i.id, i.pid, i.generation
	return ev
}

// done is closed when the worker has ended and is forgotten.
func (w *poolWorker) done() <-chan struct{} { return w.life.Done() }

// finished reports whether the worker has ended and is forgotten.
func (w *poolWorker) finished() bool { return w.life.Err() != nil }

// unlessEnded calls f after d, if the worker lives until then.
func (w *poolWorker) unlessEnded(d time.Duration, f func()) {
	timer := time.AfterFunc(d, f)
	context.AfterFunc(w.life, func() { timer.Stop() })
}

// run is the worker's life: its start, its work, its end. It is the worker's own goroutine, for
// which the end of the pool waits.
func (w *poolWorker) run() {
	c := w.driver
	limit, err := w.launch()
	launched := err == nil
	if launched {
		if err = w.bringUp(limit); err == nil {
			c.step(pool.Event{Kind: pool.Ready, Worker: w.id})
			w.watch()
			w.finish()
		}
		w.reportExit()
	}
	final, killed := c.recordExit(w, err), launched && w.killedFromOutside()
	if killed && err != nil && !c.pool.OTP { // the supervisor may not hear of it
		c.log.Error("a start failed: the worker was killed from outside", "name", w.name(), "id", w.hello.ID, "reason", w.reason.String())
	}
	c.step(pool.Event{Kind: pool.Ended, Worker: w.id, Final: final, KilledOutside: killed})
}

// launch gives the worker its backend, its channel and its place in the registry. It lives from
// then on. While the master lacks what that takes it is tried again: as long as it takes when the
// slot had a worker before, else for StartTimeout, since a caller waits for the outcome. With
// Pool.OTP the start fails. launch returns when StartTimeout ends, of which each try has its own.
func (w *poolWorker) launch() (limit time.Time, err error) {
	c := w.driver
	w.hello = c.helloFor(w)
	try := func() error {
		limit = time.Now().Add(c.pool.StartTimeout)
		ctx, cancel := context.WithDeadlineCause(w.wanted, limit, errForkTimeout)
		defer cancel()
		return w.tryLaunch(ctx)
	}
	ctx, cancel := w.wanted, context.CancelFunc(func() {})
	if w.why != pool.ForStart || w.hello.Incarnation == 1 {
		ctx, cancel = context.WithTimeout(ctx, c.pool.StartTimeout)
	}
	defer cancel()
	if c.pool.OTP {
		err = try()
	} else {
		err = c.shortages.retry(ctx, w.hello.Name, try)
	}
	if err != nil {
		return limit, err
	}
	c.mu.Lock()
	w.launched = true
	c.mu.Unlock()
	if w.wanted.Err() != nil { // kill has found nothing to kill
		w.killFor(KilledUnwanted)
	}
	return limit, nil
}

// tryLaunch is one try of launch. What a start takes is taken here, where it may be short.
func (w *poolWorker) tryLaunch(ctx context.Context) (err error) {
	c := w.driver
	inProcess := c.pool.Isolation == ProcessIsolation
	if inProcess && len(w.hello.Config) > inlineConfig {
		if w.config, err = w.gen.handle(); err != nil {
			return startError(w.hello.Name, err)
		}
	}
	c.children.assignID(w)
	w.assigned.Store(&assignment{name: w.hello.Name, slot: w.hello.Slot, incarnation: w.hello.Incarnation})
	about := w.hello.Process()
	about.Shared = !inProcess
	w.telemetry = c.backends.pipeline.Adopt(about)
	if inProcess {
		err = w.fork(ctx)
	} else {
		w.conn, w.backend = c.backends.startGoroutine(w.transport(), w.hello.Config)
	}
	if err != nil {
		w.telemetry.Ended(tracing.End{At: time.Now()})
		if w.config != nil {
			_ = w.config.Close() // a file in memory
		}
		return err
	}
	c.children.add(w)
	return nil
}

// fork starts the worker as a process. The backend is there before the channel, whose end asks for it.
func (w *poolWorker) fork(ctx context.Context) error {
	end, backend, err := w.driver.backends.fork(ctx, workerStart{
		hello: w.hello, exe: w.gen.exe, env: w.driver.pool.Environment, size: w.driver.pool.Size, place: w.assigned.Load,
	})
	if err != nil {
		return err
	}
	w.backend = backend
	if w.conn, err = fdipc.New(end, w.transport()); err != nil {
		w.backend.kill()
		w.backend.finish()
	}
	return startError(w.name(), err) // it takes a table of shared memory
}

// bringUp waits until the worker is ready and has its name; a spare gets its slot meanwhile. When
// it does not become ready, it has ended and bringUp returns why.
func (w *poolWorker) bringUp(limit time.Time) error {
	c := w.driver
	ctx, cancel := context.WithDeadlineCause(c.alive, limit, supervisor.ErrStartTimeout)
	defer cancel()
	err := w.unlessExited(ctx, w.introduce)
	if err == nil && w.hello.Slot == pool.Spare {
		if err = w.await(ctx, w.standby); err == nil {
			c.note(pool.Spare, w.event(PoolEvent{Kind: SpareReady, Took: time.Since(w.startedAt)}))
			c.step(pool.Event{Kind: pool.Warmed, Worker: w.id})
			select {
			case slot := <-w.toSlot:
				ctx, cancel = context.WithTimeoutCause(c.alive, c.pool.StartTimeout, supervisor.ErrStartTimeout)
				defer cancel()
				err = w.unlessExited(ctx, func(ctx context.Context) error { return w.assign(ctx, slot) })
			case <-w.backend.exited():
				err = errExited
			}
		}
	}
	if err == nil {
		err = w.await(ctx, w.handshaken) // descriptors can be offered from then on
	}
	if err == nil {
		err = w.unlessExited(ctx, func(ctx context.Context) error { return c.kind.link(ctx, c.children, w) })
	}
	if err == nil {
		err = w.await(ctx, w.ready)
	}
	if err != nil {
		return w.giveUp(ctx, err)
	}
	_ = c.children.registerName(w) // it may have ended by now; it was ready nevertheless
	return nil
}

// errExited is the error of a wait that the end of the worker has ended.
var errExited = errors.New("coppice: it has ended")

// introduce says to the worker what it is, and to the others that it is there.
func (w *poolWorker) introduce(ctx context.Context) error {
	// The hello comes first: what knows the worker may send it something.
	err := errors.Join(w.sendHello(ctx), w.driver.children.attach(w))
	close(w.attached)
	return err
}

// assign gives a spare that stands by its slot.
func (w *poolWorker) assign(ctx context.Context, slot int) error {
	c := w.driver
	a := childproto.AssignFrame{Name: c.name(slot), Slot: slot, Incarnation: c.incarnation(slot), Requests: c.requests(slot)}
	w.assigned.Store(&assignment{name: a.Name, slot: a.Slot, incarnation: a.Incarnation})
	c.children.sockets.AddWorker(w.sibling().Worker, w.conn) // it may ask for one from now on
	return w.conn.Send(ctx, childproto.NewFrame(childproto.FrameAssign, a))
}

// unlessExited calls f with a context that ends with ctx, or when the worker has ended. The channel
// does not always say so: a process that the worker has started may keep it open.
func (w *poolWorker) unlessExited(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { // ends with ctx
		select {
		case <-w.backend.exited():
			cancel()
		case <-ctx.Done():
		}
	}()
	return f(ctx)
}

// await waits until the worker has said what closes said, or has ended without that: its last
// word is heard before its end is known.
func (w *poolWorker) await(ctx context.Context, said <-chan struct{}) error {
	select {
	case <-said:
		return nil
	case <-w.backend.exited():
		w.finish()
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-said:
		return nil
	default:
		return errExited
	}
}

// giveUp ends a worker that did not become ready, and returns the reason: if it has ended by
// itself that is why, and not err, which is what the master met meanwhile.
func (w *poolWorker) giveUp(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if errors.Is(err, errExited) || cause == nil && w.exitedAfter(err) {
		w.finish()
		return fmt.Errorf("coppice: %s ended before it was ready: %w", w.name(), w.endError())
	}
	why := KilledUnwanted
	if errors.Is(cause, supervisor.ErrStartTimeout) {
		why = KilledNotReady
	}
	w.killFor(why)
	w.finish()
	if cause != nil {
		return fmt.Errorf("%w: %s: %w; %w", ErrNotReady, w.name(), cause, supervisor.Exit(w.reason))
	}
	return fmt.Errorf("coppice: %s: %w", w.name(), err)
}

// deathKnownTimeout bounds how long the death of a worker is waited for whose channel broke.
const deathKnownTimeout = 2 * time.Second

// exitedAfter reports whether the worker has ended, of which err, that the master met, is then but
// a sign. A channel breaks before the end is known: that is waited for.
func (w *poolWorker) exitedAfter(err error) bool {
	if childproto.IsEnd(err) {
		select {
		case <-w.backend.exited():
		case <-time.After(deathKnownTimeout):
		}
	}
	return isClosed(w.backend.exited())
}

// finish waits until the worker's backend has ended, makes the exit reason, and takes the worker
// out of everything that knows it. Only run and what it calls may call it; when it has been called
// before it does nothing.
func (w *poolWorker) finish() {
	if w.finished() {
		return
	}
	c := w.driver
	w.backend.finish()
	had := w.crashContext()
	w.conn.PeerGone()
	select {
	case <-w.conn.Done(): // its last frames are read
	case <-time.After(process.Linger): // a descendant of it has the channel
	}
	_ = w.conn.Close()
	w.exit = w.backend.exit()
	w.exit.killedFor(&w.killed)
	w.reason = w.exitReason()
	at := w.telemetry.Ended(tracing.End{
		At: time.Now(), PID: w.backend.pid(), Type: w.reason.Kind.String(), Reason: w.reason.String(),
	})
	c.lifecycle.KeepServed(w.name(), at)
	w.reportCrash(had, at)
	c.children.remove(w)
	w.endLife()
}

// reportExit says how the worker ended, and gives its name back to the worker that has its slot.
func (w *poolWorker) reportExit() {
	c := w.driver
	c.mu.Lock()
	slot, hadSlot, asked, why := w.slot, w.hadSlot, w.drainAsked, w.drainWhy
	now := c.slots[slot].occupant()
	c.mu.Unlock()
	if !asked.IsZero() {
		ev := PoolEvent{Kind: WorkerDrained, Why: why.String(), Took: time.Since(asked), Reason: w.reason, Forced: int(w.forced.Load())}
		if bye := w.exitNotice.Load(); bye != nil {
			ev.Forced = bye.Forced
		}
		if ev.Forced > 0 {
			c.log.Warn("drain: connections cut", "name", w.name(), "forced", ev.Forced, "after", ev.Took.Round(time.Millisecond))
		}
		c.note(slot, w.event(ev))
	} else if !hadSlot {
		c.note(slot, w.event(PoolEvent{Kind: WorkerFailed, Why: w.why.String(), Reason: w.reason}))
	}
	if !hadSlot && slot != pool.Spare && now != nil && now != w { // it may have had the name
		_ = c.children.registerName(now) // the master's own names are always there
	}
}
