package coppice

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/handover"
	"github.com/coppice-go/coppice/runtime/internal/inflight"
	"github.com/coppice-go/coppice/runtime/internal/liveness"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// poolWorker is the master's record of one worker of a pool, from its launch to its end. The
// listener process is a poolWorker too. run owns it, and is the only goroutine that waits for its
// end. Other goroutines ask it to end, and read the fields below as their comments allow.
type poolWorker struct {
	workerStop
	driver *poolDriver // of its pool
	id     pool.WorkerSeq
	gen    *generation

	// wanted ends when the worker is no longer wanted, or has ended. A start that waits for
	// something that the master lacks ends with it.
	wanted  context.Context
	dismiss context.CancelFunc

	toSlot chan int // a spare's slot; capacity 1

	// Guarded by poolDriver.mu.
	why           pool.Purpose // of its launch, or of its assignment to a slot
	startedAt     time.Time    // when it was launched, or assigned
	slot          int
	launched      bool // the fields that launch sets are set
	hadSlot       bool // it is, or was, a slot's worker
	stopSignalled bool // a signal from outside asked it to end
	drainAsked    time.Time
	drainWhy      pool.Purpose

	// Set by run before launched.
	takenOver bool  // from the image of the master before this one
	takeErr   error // why it could not be
	hello     childproto.Hello
	config    *fdipc.Handle          // a long configuration for a process; sendHello's
	telemetry tracing.ChildTelemetry // ended by finish, or by launch if there is no backend
	serving   *inflight.Table        // of its requests; nil = none. Closed by finish

	judging         sync.WaitGroup    // reads serving
	overdueRequests []inflight.Served // set before overdue

	assigned atomic.Pointer[assignment] // its place in the pool; a spare's changes once

	// Guarded by children.mu.
	placed bool       // it is a worker that has its slot
	link   linkHealth // of a worker, to the listener process

	handshaken  chan struct{} // closed when the channel's handshake is over: descriptors can be sent
	attached    chan struct{} // closed when its hello is sent and it is known to the others
	standby     chan struct{} // of a spare: closed when it waits for a slot
	setStandby  func()
	ready       chan struct{} // closed when it reports that it does its work
	setReady    func()
	over        chan struct{} // closed when its pool knows that it has ended
	linkedToAll chan struct{} // of the listener process: closed when it has its links and sockets, or never will
	drained     chan struct{} // of the listener process: closed when no connection is unclaimed any more
	setDrained  func()

	retired      atomic.Bool           // it will not be replaced, or has been already: its end leaves no gap
	channelErr   atomic.Pointer[error] // what ended its channel, if not the worker
	exitNotice   atomic.Pointer[childproto.ExitNotice]
	declared     atomic.Pointer[error] // whether the tree can use what its program declares; nil until it declares something else than the tree
	forced       atomic.Int64          // connections that were cut at its drain's deadline
	relinked     atomic.Int64          // times that it got a new link for a broken one
	framesLost   atomic.Uint64         // frames whose descriptors the master had no room for
	badFrames    atomic.Uint64         // frames that could not be understood
	memory       atomic.Int64          // what it took when it was over Recycle.SoftMemory
	stopSignal   sync.Once             // the first signal from outside counts
	requestsDone sync.Once             // the first report that it has had its share of requests counts
	heartbeats   liveness.Answers
	stacks       fdipc.Calls[struct{}, childproto.StacksFrame]

	// Set before life ends.
	reason        supervisor.Reason
	killedOutside bool  // something outside the tree has ended it
	misfit        bool  // its program could not be a child of the tree
	err           error // why it did not become ready; guarded by poolDriver.mu
}

func newPoolWorker(c *poolDriver, e pool.Effect) *poolWorker {
	w := &poolWorker{
		driver: c, id: e.Worker, gen: c.generations.use(int(e.Gen)), why: e.Why, slot: e.Slot, startedAt: time.Now(), toSlot: make(chan int, 1),
		handshaken: make(chan struct{}), attached: make(chan struct{}), standby: make(chan struct{}), ready: make(chan struct{}),
		over: make(chan struct{}), linkedToAll: make(chan struct{}), drained: make(chan struct{}),
	}
	w.wanted, w.dismiss = context.WithCancel(c.alive)
	w.drain = drainOf(c.pool.Shutdown)
	w.life, w.endLife = context.WithCancel(context.Background())
	w.setStandby = sync.OnceFunc(func() { close(w.standby) })
	w.setReady = sync.OnceFunc(func() { close(w.ready) })
	w.setDrained = sync.OnceFunc(func() { close(w.drained) })
	return w
}

// name returns the worker's registered name, or its name before it has one.
func (w *poolWorker) name() string { return w.assigned.Load().name }

// self returns the worker's hello with its present place.
func (w *poolWorker) self() childproto.Hello {
	h, at := w.hello, w.assigned.Load()
	h.Name, h.Slot, h.Incarnation = at.name, at.slot, at.incarnation
	return h
}

// sibling returns what other children learn of the worker.
func (w *poolWorker) sibling() childproto.Sibling { return w.self().Sibling() }

// address returns the worker's actor address.
func (w *poolWorker) address() string { return w.driver.children.address(w.hello.ID) }

// identity returns the worker's present identity.
func (w *poolWorker) identity() Identity {
	at := w.assigned.Load()
	return Identity{at.name, at.slot, w.hello.ID, w.backend.pid(), at.incarnation, w.hello.Generation}
}

// info returns the child's present info.
func (w *poolWorker) info() info {
	i := info{role: Role(w.hello.Role), Identity: w.identity(), relinked: int(w.relinked.Load()), requests: w.heartbeats.Requests(), group: w.backend.group()}
	if p, ok := w.backend.(interface{ status() string }); ok {
		i.status = p.status()
	}
	return i
}

// event completes ev with the worker's identity.
func (w *poolWorker) event(ev Event) Event {
	ev.Identity = w.identity()
	return ev
}

// run runs the worker from its start to its end. The end of the pool waits for this goroutine.
func (w *poolWorker) run() {
	defer close(w.over)
	c := w.driver
	limit, err := w.launch()
	launched := err == nil
	if launched {
		if err = w.bringUp(limit); err == nil {
			c.step(pool.Event{Kind: pool.Ready, Worker: w.id})
			if w.hello.Alone {
				c.guard.tryIn(w)
			}
			if w.takenOver {
				<-c.children.inherited.ended // it is not heard before
			}
			w.judging.Go(requestJudge{
				&w.workerStop, childproto.Timeouts(c.pool.RequestTimeout), w.serving, c.log.With("name", w.name(), "id", w.hello.ID), w.replaceOverdue,
			}.run) // endGuard waits for it
			w.watch(c.kind.heartbeat(c.pool), &w.heartbeats, &c.judging, c.log, w.self())
			w.finish()
		}
		w.reportExit()
	}
	if w.hello.Alone {
		c.guard.triedIn(err)
	}
	final, killed := c.recordExit(w, err), launched && w.killedOutside
	if killed && err != nil && !c.pool.OTP { // its supervisor may not learn of it
		c.log.Error("a start failed: the worker was killed from outside", "name", w.name(), "id", w.hello.ID, "reason", w.reason.String())
	}
	c.step(pool.Event{Kind: pool.Ended, Worker: w.id, Final: final, KilledOutside: killed, Orderly: launched && err == nil && w.reason.IsNormal()})
}

// launch gives the worker its backend, its channel and its place in the registry. If the master
// lacks something for that, launch tries again: without limit if the slot had a worker before,
// otherwise for StartTimeout, since a caller waits for the outcome. With Pool.OTP the start fails
// at once. limit is the end of StartTimeout; each try has its own.
func (w *poolWorker) launch() (limit time.Time, err error) {
	c := w.driver
	if !w.takenOver {
		w.hello = c.helloFor(w)
	}
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
	if w.wanted.Err() != nil { // kill came before there was something to kill
		w.killFor(KilledUnwanted)
	}
	return limit, nil
}

// tryLaunch makes one try of launch. It takes what a start needs, where the master may be short of
// it.
func (w *poolWorker) tryLaunch(ctx context.Context) (err error) {
	c := w.driver
	if w.takenOver {
		return w.takeErr
	}
	inProcess := c.pool.forksItself()
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
	} else if c.pool.Command != nil {
		err = w.startProgram()
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

// takeOver makes the worker that of the image before, in place of a launch. It comes before the
// effect that launches it is done, so that the trial does not end meanwhile.
func (w *poolWorker) takeOver(before *handover.FormerWorker) error {
	c, in := w.driver, w.driver.children.inherited
	w.takenOver, w.hello = true, before.Hello
	w.assigned.Store(&assignment{name: w.hello.Name, slot: w.hello.Slot, incarnation: w.hello.Incarnation})
	about := w.hello.Process()
	w.telemetry = c.backends.pipeline.Adopt(about)
	b, err := c.backends.takeOver(in, before.Process, workerStart{hello: w.hello, place: w.assigned.Load}.request())
	if err != nil {
		return fmt.Errorf("coppice: take over %s: %w", w.hello.Name, err)
	}
	w.backend = b
	state, fds, err := in.take(before.Channel)
	if err != nil {
		return fmt.Errorf("coppice: take over the channel of %s: %w", w.hello.Name, err)
	}
	if w.conn, err = fdipc.Restore(state, fds, w.transport()); err != nil {
		return fmt.Errorf("coppice: take over the channel of %s: %w", w.hello.Name, err)
	}
	in.afterTrial(w.conn.Resume)
	close(w.handshaken)
	w.link.made(before.Link)
	if w.hello.Slot == None {
		w.setStandby()
	} else {
		w.setReady()
	}
	c.mu.Lock()
	w.startedAt = before.Began
	if w.hello.Slot != None {
		c.slotLocked(w.slot).incarnations = w.hello.Incarnation - 1
	}
	c.mu.Unlock()
	c.children.add(w)
	return nil
}

// fork starts the worker as a process. The backend must be set before the channel, whose end uses
// it.
func (w *poolWorker) fork(ctx context.Context) error {
	end, backend, err := w.driver.backends.fork(ctx, workerStart{
		hello: w.hello, exe: w.gen.exe, environ: w.gen.environ, env: w.driver.environment(w.gen.environ), size: w.driver.pool.Size, place: w.assigned.Load,
	})
	if err != nil {
		return err
	}
	w.backend = backend
	if w.conn, err = fdipc.New(end, w.transport()); err != nil {
		w.backend.kill()
		w.backend.finish()
	}
	return startError(w.name(), err) // it needs a table in shared memory
}

// bringUp waits until the worker is ready and has its name; a spare gets its slot during the wait.
// If the worker does not become ready, it ends, and bringUp returns why.
func (w *poolWorker) bringUp(limit time.Time) error {
	c := w.driver
	ctx, cancel := context.WithDeadlineCause(c.alive, limit, supervisor.ErrStartTimeout)
	defer cancel()
	sayIfSlow := func() (stop func()) {
		return afterSlowStart(c.pool.StartTimeout, func(d time.Duration) {
			u := w.unready()
			c.log.Warn(fmt.Sprintf("the start of %s takes long: after %v %s", w.name(), d, u.missing()),
				"name", w.name(), "id", w.hello.ID, "pid", w.backend.pid(), "limit", c.pool.StartTimeout.String(), "hint", u.hint())
		})
	}
	said := sayIfSlow()
	defer func() { said() }()
	err := w.unlessExited(ctx, w.introduce)
	if err == nil && w.hello.Slot == pool.Spare {
		if err = w.await(ctx, w.standby); err == nil {
			c.note(pool.Spare, w.event(Event{Kind: SpareReady, Took: time.Since(w.startedAt)}))
			if in := c.children.inherited; in != nil {
				<-in.ended // until then it would get the slot of a worker that is still to be taken over
			}
			c.step(pool.Event{Kind: pool.Warmed, Worker: w.id})
			said() // a spare may wait for long
			select {
			case slot := <-w.toSlot:
				said = sayIfSlow()
				ctx, cancel = context.WithTimeoutCause(c.alive, c.pool.StartTimeout, supervisor.ErrStartTimeout)
				defer cancel()
				err = w.unlessExited(ctx, func(ctx context.Context) error { return w.assign(ctx, slot) })
			case <-w.backend.exited():
				err = errExited
			}
		}
	}
	if err == nil {
		err = w.await(ctx, w.handshaken) // descriptors can be sent from then on
	}
	if err == nil {
		err = w.unlessExited(ctx, func(ctx context.Context) error { return c.kind.link(ctx, c.children, w) })
	}
	if err == nil {
		err = w.await(ctx, w.ready)
	}
	if err == nil {
		if d := w.declared.Load(); d != nil {
			err = *d
		} else if c.pool.Command == nil {
			err = w.declare(nil) // the same as the tree
		}
	}
	if err != nil {
		return w.giveUp(ctx, err)
	}
	_ = c.children.registerName(w) // it may have ended by now, but it was ready
	return nil
}

// declare records what the worker declares of the tree, which may be of no use to the tree.
func (w *poolWorker) declare(lines []string) error {
	c := w.driver
	return c.declarations.add(w.name(), c.path, w.gen.number, lines, w.gen.number != c.generations.now())
}

// declarationFrame takes what the worker's program declares, before the worker runs user code. If
// the tree cannot use it, the worker ends before it serves.
func (w *poolWorker) declarationFrame(d childproto.DeclarationFrame) {
	if childproto.IsClosed(w.ready) || w.declared.Load() != nil { // a later one is not of a fresh process
		return
	}
	err := w.declare(d.Lines)
	if w.declared.Store(&err); err != nil {
		w.killFor(KilledUnwanted)
	}
}

// errExited is the error of a wait that ended because the worker has ended.
var errExited = errors.New("coppice: it has ended")

// introduce sends the worker its hello, and makes it known to the others.
func (w *poolWorker) introduce(ctx context.Context) (err error) {
	defer close(w.attached)
	if !w.takenOver {
		// The hello comes first, because the others may send frames to a worker that they know.
		if err = w.sendHello(ctx); err == nil {
			w.sendGuard(ctx)
		}
	}
	return errors.Join(err, w.driver.children.attach(w))
}

// assign gives a standby spare its slot.
func (w *poolWorker) assign(ctx context.Context, slot int) error {
	c := w.driver
	a := childproto.AssignFrame{Name: c.name(slot), Slot: slot, Incarnation: c.incarnation(slot), Requests: c.pool.Recycle.requestLimit(slot, c.size())}
	w.assigned.Store(&assignment{name: a.Name, slot: a.Slot, incarnation: a.Incarnation})
	if w.finished() { // as a spare: it would stay known to the sockets
		return errExited
	}
	c.children.sockets.AddWorker(w.sibling().Worker, w.conn) // it may ask for a socket from now on
	return w.conn.Send(ctx, childproto.NewFrame(childproto.FrameAssign, a))
}

// unlessExited calls f with a context that ends with ctx, or when the worker has ended. The end of
// the channel is no sure sign of that: a process that the worker has started may keep the channel
// open.
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

// await waits until the worker has sent the frame that closes said, or has ended without it. The
// worker's last frames are handled before its end is known.
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

// giveUp ends a worker that did not become ready, and returns the reason. If the worker ended
// without being asked, that end is the reason; otherwise it is err, the error that the master got.
func (w *poolWorker) giveUp(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if d := w.declared.Load(); d != nil && *d != nil {
		err, cause = *d, nil
	} else if errors.Is(err, errExited) || cause == nil && w.exitedAfter(err) {
		w.finish()
		if w.misfit {
			return w.failure(errMisfit)
		}
		return w.failure()
	}
	if errors.Is(cause, supervisor.ErrStartTimeout) {
		w.endNotReady()
		w.finish()
		return w.failure(ErrNotReady, cause)
	}
	w.killFor(KilledUnwanted)
	w.finish()
	if cause != nil {
		f := w.failure(ErrNotReady, cause)
		f.what = fmt.Sprintf("it is no longer wanted: %v", cause)
		return f
	}
	return fmt.Errorf("coppice: %s: %w", w.name(), err)
}

// deathKnownTimeout bounds the wait for the end of a worker whose channel broke.
const deathKnownTimeout = 2 * time.Second

// unready returns how far w, which is not ready, has come.
func (w *poolWorker) unready() unready {
	c := w.driver
	return unready{
		entry: c.entry, limit: c.pool.StartTimeout, worker: c.kind.ofConfig, prepares: c.pool.Prepare != nil,
		inTree:  childproto.IsClosed(w.handshaken) || w.channelErr.Load() != nil || w.backend.pid() == 0,
		spare:   w.hello.Slot == pool.Spare && !childproto.IsClosed(w.standby),
		program: c.pool.Command != nil, sign: c.pool.Ready,
	}
}

// failure returns the error of w, which has ended and was not ready. is is what the error is
// besides the exit reason.
func (w *poolWorker) failure(is ...error) *startFailure {
	u, end := w.unready(), w.end()
	lines := newest(w.backend.printedLast())
	if cause := w.backend.cause(); cause != nil {
		is = append(is, cause)
	}
	if end.exit.Killed == KilledNotReady {
		lines = append(lines, stacks.OfMain(w.backend.dump())...)
	}
	return &startFailure{
		name: w.name(), what: u.ended(end, w.reason), lines: lines,
		tag: w.identity().Tag(),
		is:  append(is, supervisor.Exit(u.reason(end, w.reason))),
	}
}

// exitedAfter reports whether the worker has ended and err, which the master got, is only a sign of
// that. A channel breaks before the end is known, so exitedAfter waits for the end.
func (w *poolWorker) exitedAfter(err error) bool {
	if childproto.IsEnd(err) {
		select {
		case <-w.backend.exited():
		case <-time.After(deathKnownTimeout):
		}
	}
	return childproto.IsClosed(w.backend.exited())
}

// finish waits until the worker's backend has ended, makes the exit reason, and removes the worker
// from everything that knows it. Only run and the functions that run calls may call it; a second
// call does nothing.
func (w *poolWorker) finish() {
	if w.finished() {
		return
	}
	c := w.driver
	w.backend.finish()
	var had crashContext
	if c.kind.ofConfig {
		had = crashContextOf(w.hello.ID, w.address(), c.children.system, c.children.sockets)
	}
	readToEnd(w.conn)
	end := w.end()
	w.reason, w.killedOutside, w.misfit = end.reason(), end.fromOutside(), end.misfit(childproto.IsClosed(w.handshaken))
	at := w.telemetry.Ended(tracing.End{
		At: time.Now(), PID: w.backend.pid(), Type: w.reason.Kind.String(), Reason: w.reason.String(), Process: w.self().Process(),
	})
	c.lifecycle.KeepServed(w.name(), at...)
	requests := w.endGuard(end.exit)
	if isCrash(w.reason, end.exit) {
		if c.mu.Lock(); !w.hello.Alone {
			c.deaths[w.gen.number]++
		}
		c.mu.Unlock()
		r := had.report(w.identity(), string(w.hello.Role), w.reason, end.exit, at)
		r.Ready, r.Build = childproto.IsClosed(w.ready), w.gen.build
		w.backend.fillReport(&r)
		r.served(requests)
		c.crashes.report(r)
	}
	c.children.remove(w)
	w.endLife()
}

// end returns what is known of the worker's end, after backend.finish.
func (w *poolWorker) end() workerEnd {
	e := workerEnd{
		exit: w.backend.exit(), notice: w.exitNotice.Load(),
		by: endContext{w.askedStop.Load(), w.backend.sent(), w.driver.pool.SuccessExit},
	}
	e.exit.killedFor(&w.killed)
	if w.driver.pool.Command != nil && e.exit.PID != 0 {
		e.notice = nil // of the master's part of it
	}
	if hung := w.hung.Load(); hung != nil {
		e.hung = *hung
	} else if w.overdue.Load() != nil && w.serving != nil && !w.endedAbruptly(e.exit) {
		e.hung = w.lateRequest()
	}
	if broken := w.channelErr.Load(); broken != nil {
		e.broken = *broken
	}
	return e
}

// reportExit reports how the worker ended, and gives its name back to the worker that has its slot.
func (w *poolWorker) reportExit() {
	c := w.driver
	c.mu.Lock()
	slot, hadSlot, begun, asked, why := w.slot, w.hadSlot, w.why, w.drainAsked, w.drainWhy
	now := c.slots[slot].occupant()
	c.mu.Unlock()
	if errors.Is(w.reason.Err(), ErrHung) {
		c.lifecycle.Count(tracing.Hangs, 1, tracing.KeyPool.String(c.path))
	}
	if !asked.IsZero() {
		ev := Event{Kind: WorkerDrained, Why: why.String(), Took: time.Since(asked), Reason: w.reason, Forced: int(w.forced.Load())}
		if n := w.exitNotice.Load(); n != nil {
			ev.Forced = n.Forced
		}
		if ev.Forced > 0 {
			c.lifecycle.Count(tracing.ConnectionsCut, ev.Forced, tracing.KeyPool.String(c.path))
			c.log.Warn("drain: connections cut", "name", w.name(), "forced", ev.Forced, "after", ev.Took.Round(time.Millisecond))
		}
		c.note(slot, w.event(ev))
	} else if !hadSlot {
		c.note(slot, w.event(Event{Kind: WorkerFailed, Why: begun.String(), Reason: w.reason}))
	}
	if !hadSlot && slot != pool.Spare && now != nil && now != w { // it may have had the name
		_ = c.children.registerName(now) // the master's own names are always there
	}
}
