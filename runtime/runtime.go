package coppice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/declaration"
	"github.com/coppice-go/coppice/runtime/internal/handover"
	"github.com/coppice-go/coppice/runtime/internal/history"
	"github.com/coppice-go/coppice/runtime/internal/output"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/queue"
	"github.com/coppice-go/coppice/runtime/internal/telemetry"
	"github.com/coppice-go/coppice/runtime/internal/testrun"
	"github.com/coppice-go/coppice/runtime/internal/tickets"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// A Runtime is a running tree, as its master sees it. Its methods may be called by any goroutine.
type Runtime struct {
	cfg  Config
	log  *slog.Logger
	root *node

	test         testrun.Test // that called Start
	generations  generations
	pools        *pools
	sizes        poolSizes
	funcStates   funcStates
	departures   departures
	reload       chan struct{} // holds one token while a reload goes on
	orders       canaryOrders
	endWatch     atomic.Pointer[context.CancelCauseFunc] // of the latest reload
	output       *queue.Queue[output.Line]
	shortages    *retries // starts that lack something
	misfits      *retries // starts of workers whose program cannot be what it was
	declarations *declarations
	up           chan struct{} // closed when Start has started every child
	backends     *backends
	stopsRefused atomic.Uint64 // requests of children that the master stop
	closing      atomic.Bool   // Shutdown has been called
	begun        atomic.Bool   // what its methods use is there
	crashes      *crashQueue
	reaper       *reaper // nil when another process reaps orphans
	pipeline     tracing.Pipeline
	lifecycle    *telemetry.Lifecycle // nil when neither spans nor metrics are on
	channelStats telemetry.Transport
	system       *actors.System
	tree         *supervisor.Supervisor
	events       *history.Log[Event]
	lines        *history.Log[OutputLine]
	began        time.Time
	inherited    *inheritance     // of the image of the master before this one; nil if there was none
	control      *controlEndpoint // nil when there is none

	children *children
	closed   sync.Once                      // by stopListening
	manager  atomic.Pointer[serviceManager] // systemd; nil when it wants no messages
	sockets  *registry.Table
	stops    stopPlan
	upgrades atomic.Int32 // that wait for a reload, or another upgrade
	still    sync.Mutex   // held by an upgrade while nothing goes to the children

	ended chan struct{} // closed when the tree has ended and everything is closed
	err   error         // why, after ended
}

// running is the tree of this program. There is one at a time, because a child finds its own part
// of the tree by path.
var running atomic.Pointer[Runtime]

// upgradeEnd has the last steps of an upgrade, which use the whole Runtime. They are variables so
// that the parts that the Runtime is made of do not need all of it in turn.
var upgradeEnd struct {
	startLeft func(*Runtime, context.Context) error
	confirm   func(*Runtime)
}

// Running returns the tree of which this process is the master, from before Config.Load is first
// called until the tree has ended; otherwise, and in a child process, nil. It is for what runs in
// the master without a Runtime at hand: a [Func], an [Actor], [Config.Load], [Hooks]. There the
// whole tree can be asked, monitored, listed and scaled:
//
//	coppice.Func{Name: "page", Restart: supervisor.Temporary, Run: func(ctx context.Context) error {
//		rt := coppice.Running()
//		page := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, rt.Snapshot()) }
//		s := &http.Server{Addr: "127.0.0.1:9000", Handler: http.HandlerFunc(page)}
//		context.AfterFunc(ctx, func() { _ = s.Close() })
//		return s.ListenAndServe()
//	}}
//
// Do not wait in one of them for what waits for it in turn: Shutdown, Wait, Done. A worker asks by
// its [Worker] instead, also where workers are goroutines of the master.
func Running() *Runtime {
	if rt := running.Load(); rt != nil && rt.begun.Load() {
		return rt
	}
	return nil
}

// Start starts the tree and returns when every child is up: each worker ready, each actor started.
// When a child cannot be started, Start stops those that were started, and its error names the
// child and the reason. ctx bounds the start alone.
//
// In a child process Start does not return: it finds the child's part in cfg by its path, runs it,
// and exits.
//
// In a test the children run the test binary, as far as this call: the test that calls Start once
// more, and no other. In a subtest call runtimetest.Tree instead, which says its name.
func Start(ctx context.Context, cfg Config) (_ *Runtime, err error) {
	cfg = cfg.override().defaults()
	cfg.Logger = queued(cfg.Logger)
	begun := false
	defer func() {
		if err != nil && !begun {
			refuseImage(err, cfg.Logger)
		}
	}()
	root, err := parseTree(cfg)
	if err != nil {
		return nil, err
	}
	switch in := inherit(); {
	case in.err != nil:
		return nil, fmt.Errorf("coppice: %w", in.err)
	case in.ok:
		child := root.childConfig(cfg.Logger, cfg.OrphanDrain, cfg.declare(root))
		thread := onMainThread(testrun.Find(ctx))
		child.Check = func(state []byte) error {
			return errors.Join(thread, root.canTakeOver(cfg.ListenerIsolation, hostOf(cfg.Hosts), state))
		}
		return nil, runChild(child, in.channel)
	}
	if _, err := depth(); err != nil {
		return nil, err
	}
	if err := root.checkDescriptors(cfg.ListenerIsolation); err != nil {
		return nil, err
	}

	rt := &Runtime{
		cfg: cfg, log: cfg.Logger, root: root, reload: make(chan struct{}, 1), up: make(chan struct{}), ended: make(chan struct{}),
		events: newEventLog(), lines: newLineLog(), began: time.Now(),
	}
	rt.test = testrun.Find(ctx)
	rt.shortages, rt.misfits = newShortages(rt.log), newMisfits(rt.log)
	rt.declarations = newDeclarations(rt.log, cfg.declare(root), func() []string { return root.needed(cfg.ListenerIsolation) })
	rt.pools = &pools{generations: &rt.generations}
	rt.funcStates = funcStates{runs: map[string]*funcRun{}, kept: map[string]*handover.FuncState{}}
	rt.children = newChildren(rt.log, rt.shortages, &rt.channelStats) // before a second signal may look for it
	if !running.CompareAndSwap(nil, rt) {
		return nil, ErrRunning
	}
	begun = true
	if rt.children.host = hostOf(cfg.Hosts); rt.children.host != "" {
		rt.children.boot = cfg.Hosts.NewBoot()
	}
	if err := rt.takeOver(ctx); err != nil {
		return nil, err
	}
	up := false
	defer func() { // also when Config.Load panics
		if !up {
			flushLog(rt.log)
			rt.events.Close()
			close(rt.ended)
			running.Store(nil)
		}
	}()
	if err := rt.start(ctx); err != nil {
		return nil, root.inTest(rt.test, cfg.ListenerIsolation, err)
	}
	up = true
	if rt.inherited == nil {
		rt.log.Info("the tree is up", "took", time.Since(rt.began))
		rt.sizes.logMemory(rt.log, &rt.generations, process.CgroupMemory(), rt.root)
	} else {
		what := "the new program has taken over"
		if rt.inherited.back != "" {
			what = "the old program has its children back"
		}
		rt.log.Info(what, "took", time.Since(rt.inherited.execed))
		upgradeEnd.confirm(rt)
	}
	go rt.awaitEnd() // ends with the tree
	if f := cfg.Hooks.Started; f != nil {
		rt.started(ctx, f)
	}
	return rt, nil
}

// takeOver takes what the image of the master before this one has left, if there was one. ctx is
// that of Start.
func (rt *Runtime) takeOver(ctx context.Context) error {
	in, err := takeImage(rt.root, rt.declarations.tree(), func(why error) { rt.endTrial(ctx, why) })
	if in == nil || err != nil {
		return err
	}
	rt.reload <- struct{}{} // finishUpgrade gives it back: the reload that follows is the next
	rt.inherited, rt.children.inherited = in, in
	rt.began, rt.children.boot = in.state.Began, in.state.Boot
	rt.children.last, rt.children.links = in.state.LastID, in.state.LastLink
	rt.sizes.takeOver(in.begun)
	rt.funcStates.takeOver(in.state.Funcs)
	rt.events.Continue(in.state.Events)
	return nil
}

// endTrial executes the program of before again, if this one is in the trial of an upgrade. If the
// end of ctx has asked for the end of the tree, that is the end of the trial.
func (rt *Runtime) endTrial(ctx context.Context, why error) {
	in := rt.inherited
	if in == nil {
		return
	}
	in.goingBack.Lock()
	defer in.goingBack.Unlock()
	if in.over.Swap(true) {
		return
	}
	if ctx.Err() == nil {
		in.endTrial(why, rt.log, func() {
			for _, w := range rt.children.all() {
				if !w.takenOver {
					w.killFor(KilledUnwanted)
				}
			}
		})
	}
	rt.resumeTaken() // the tree ends, and hears its children
}

// resumeTaken sets going what was taken over: last the table of sockets, which sends by the Conns.
func (rt *Runtime) resumeTaken() {
	if rt.system != nil {
		rt.system.Resume()
	}
	if err := rt.inherited.confirm(); err != nil {
		rt.log.Error("upgrade: close what nothing needs", "err", err)
	}
	if rt.sockets != nil {
		rt.sockets.Continue()
	}
}

// declare returns what the program declares with cfg, whose tree is root.
func (cfg Config) declare(root *node) []string {
	return slices.Concat(declaration.Of(declaration.Root, cfg, "Children", "Service", "Hosts"), root.lines(), functionLines())
}

// started calls the hook and waits for it until ctx ends. If the hook is stuck, a request to end
// the tree must still be heard.
func (rt *Runtime) started(ctx context.Context, hook func(*Runtime)) {
	defer warnIfSlow(rt.log, unlimited, "Hooks.Started", "it has not returned", "hint", "Start and Main wait for it: let a Func do what lasts")()
	done := make(chan struct{})
	go func() { // ends with the hook
		defer close(done)
		hook(rt)
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// forDebugger reports whether COPPICE_ISOLATION asks for goroutines instead of processes.
func forDebugger() bool { return os.Getenv("COPPICE_ISOLATION") == GoroutineIsolation.String() }

// override applies COPPICE_ISOLATION.
func (cfg Config) override() Config {
	if !forDebugger() {
		return cfg
	}
	cfg.ListenerIsolation = GoroutineIsolation
	cfg.Children = inGoroutines(cfg.Children)
	return cfg
}

func inGoroutines(specs []ChildSpec) []ChildSpec {
	out := make([]ChildSpec, len(specs))
	for i, spec := range specs {
		switch s := spec.(type) {
		case Pool:
			if s.Command != nil {
				break
			}
			s.Isolation = GoroutineIsolation
			s.Environment = Environment{} // only a process has one
			spec = s
		case Supervisor:
			s.Children = inGoroutines(s.Children)
			spec = s
		}
		out[i] = spec
	}
	return out
}

// start brings up what the tree needs, and then the tree. On an error it takes everything down
// again.
func (rt *Runtime) start(ctx context.Context) (err error) {
	process.KeepThreads(process.SpareThreads)
	var undo []func()
	defer func() {
		if !childproto.IsClosed(rt.up) { // an error, or a panic of Config.Load
			rt.endTrial(ctx, err)
			for _, f := range slices.Backward(undo) {
				f()
			}
		}
	}()
	to, dumps := lineWriter(rt.cfg.Output, rt.cfg.Tags)
	rt.output = newOutputQueue(to, rt.lines, rt.cfg.MaxLine)
	rt.crashes = newCrashQueue(rt.cfg.Hooks.Crash, rt.events)
	if in := rt.inherited; in != nil && in.state.Crashes != nil {
		if err := rt.crashes.takeOver(in.state.Crashes); err != nil { // no reason to fail
			rt.log.Warn("upgrade: the crash reports of the program before are lost", "err", err)
		}
	}
	undo = append(undo, rt.endOutput)
	if rt.reaper, err = startReaper(rt.log, rt.cfg.Subreaper); err != nil {
		return err
	}
	undo = append(undo, rt.endReaper)
	rt.system, err = rt.inherited.openSystem(actors.Config{
		Address: rt.children.address(childproto.MasterID), Host: rt.children.host, Logger: rt.log, Hooks: actors.Hooks{Stop: rt.stopAsked, Reserved: rt.root.reserves},
	})
	if err != nil {
		return err
	}
	undo = append(undo, func() { _ = withPartingTimeout(rt.system.Shutdown) })
	rt.sockets, err = rt.inherited.openTable(registry.Config{
		Logger: rt.log, Functions: rt.root.functions, Rules: rt.root.listenRules, Listeners: rt.root.requests(), Store: rt.cfg.store, Ending: rt.ending,
	})
	if err != nil {
		return err
	}
	undo = append(undo, func() { rt.sockets.Close() })
	rt.children.system, rt.children.sockets, rt.children.names = rt.system, rt.sockets, rt.root.listeners
	if err := rt.ownActors(ctx); err != nil {
		return err
	}
	// The root is there before its first child, which may ask for the tree.
	rt.tree, err = supervisor.Start(ctx, supervisor.Spec{
		Name: childproto.MasterName, Strategy: rt.cfg.Strategy, Intensity: rt.cfg.Intensity,
	}, supervisor.Config{Logger: rt.log, Observe: keepEvents(rt.events), Books: rt.inherited.books()})
	if err != nil {
		return err
	}
	root := supervisor.Instance(rt.tree)
	rt.root.instance.Store(&root)
	endTree := func() { rt.tree.Stop(); <-rt.tree.Done() }
	undo = append(undo, endTree)
	rt.begun.Store(true)
	config, err := rt.cfg.load(ctx) // it may ask for the tree too
	if err != nil {
		return err
	}
	if err := rt.inherited.firstGeneration(&rt.generations, config); err != nil {
		return err
	}
	undo = append(undo, func() { rt.generations.current.release() })
	if rt.pipeline, err = tracing.Start(ctx, tracing.ProcessResource{Role: childproto.MasterName, Name: childproto.MasterName, Slot: None, Generation: 1, Incarnation: 1}, nil); err != nil {
		rt.log.Warn("no tracing", "err", err) // service goes on without it
	}
	undo = append(undo, func() { _ = withPartingTimeout(rt.pipeline.Shutdown) })
	rt.backends = &backends{
		spawner: spawner{rt.log, rt.output, rt.test, rt.cfg.MaxLine, dumps, rt.cfg.OrphanDrain, newGroupMetrics()}, pipeline: rt.pipeline, child: rt.root.childConfig(rt.log, rt.cfg.OrphanDrain, nil),
	}
	rt.lifecycle = telemetry.Follow(rt.pipeline, rt.tree, telemetryInfo)
	telemetry.Register(rt.pipeline.Meter(), &rt.channelStats, rt.system)
	measurePools(rt.pipeline.Meter(), rt.pools, rt.Snapshot, rt.backends.groups)
	measureProcesses(rt.pipeline.Meter(), &rt.generations, rt.children, rt.sockets)
	undo = append(undo, func() {
		endTree()
		rt.departures.wait()
		rt.lifecycle.Wait()
	})
	rt.control = openEndpoint(rt.cfg, rt, rt.operatedParts()) // what it shows and calls is there
	undo = append(undo, rt.control.close)
	if f := rt.cfg.starting; f != nil {
		defer f()()
	}
	specs := append(rt.ownSpecs(rt.root), rt.childSpecs(rt.root.declared, rt.up)...)
	if rt.inherited != nil {
		specs = rt.inherited.first(specs, rt.root)
	}
	for _, c := range specs {
		if _, err := rt.tree.StartChild(ctx, c); err != nil {
			if rt.ending() { // a child before this one has ended the tree, or the start failed for it
				<-rt.tree.Done()
				if why := rt.whyEnded(); why != nil {
					return why
				}
			}
			return treeStartError(err)
		}
	}
	if rt.inherited != nil {
		if err := cmp.Or(upgradeEnd.startLeft(rt, ctx), rt.inherited.failure()); err != nil {
			return treeStartError(err)
		}
	}
	close(rt.up)
	if rt.cfg.store != nil {
		for _, name := range rt.cfg.store.Rest() {
			rt.log.Warn("a socket that systemd kept was not asked for before the tree was up: it is closed", "name", name)
		}
	}
	return nil
}

// whyEnded returns why the tree has ended; nil if it was asked to.
func (rt *Runtime) whyEnded() error {
	if r := rt.tree.Reason(); !r.IsNormal() {
		return fmt.Errorf("coppice: the tree ended: %w", r.Err())
	}
	return nil
}

// awaitEnd waits for the tree's end and takes down what it stood on.
func (rt *Runtime) awaitEnd() {
	<-rt.tree.Done()
	rt.err = rt.whyEnded()
	rt.departures.wait()
	rt.control.close()
	rt.sockets.Close()
	_ = withPartingTimeout(rt.system.Shutdown) // what it could not send it has counted
	rt.lifecycle.Wait()
	if err := withPartingTimeout(rt.pipeline.Shutdown); err != nil {
		rt.log.Warn("telemetry was lost at the end of the tree", "err", err)
	}
	rt.generations.end()
	rt.endReaper()
	rt.endOutput()
	flushLog(rt.log)
	running.CompareAndSwap(rt, nil)
	rt.events.Close()
	close(rt.ended)
}

func (rt *Runtime) endReaper() {
	if rt.reaper == nil {
		return
	}
	if err := rt.reaper.Close(); err != nil {
		rt.log.Error("cannot give up being a subreaper", "err", err)
	}
}

// endOutput waits for the last lines and crash reports, with measure.
func (rt *Runtime) endOutput() {
	if lost := rt.crashes.close(); lost > 0 {
		rt.log.Warn("crash reports were lost: Hooks.Crash has not taken them", "reports", lost)
	}
	if lost := rt.output.Close(outputFlush); lost > 0 {
		rt.log.Warn("lines of output were lost: Config.Output has not taken them", "lines", lost)
	}
}

// managed returns what a service manager needs of the tree, whose signals are handled by the
// goroutine that turns asks.
func (rt *Runtime) managed(turns chan<- chan<- struct{}) managedTree {
	return managedTree{rt.tree, func() string { return rt.Snapshot().status() }, rt.cfg.Shutdown, turns}
}

// Done returns a channel that is closed when the tree has ended, for whatever reason.
func (rt *Runtime) Done() <-chan struct{} { return rt.ended }

// Wait waits for the tree's end. It returns nil when the end was asked for, otherwise why the tree
// ended.
func (rt *Runtime) Wait() error {
	<-rt.ended
	return rt.err
}

// Shutdown ends the tree in order and waits for its end. It closes the listening sockets once the
// connections in their backlogs are accepted and claimed, in a quarter of ctx's time at most. Then
// the children stop in reverse start order, each within its Shutdown time, or within its part of
// ctx's time if that is less (see Config.Shutdown), and every process is reaped. When ctx ends
// first, what still runs is killed, and the error wraps ctx's. Concurrent calls wait for the same
// shutdown.
func (rt *Runtime) Shutdown(ctx context.Context) error {
	select {
	case <-rt.ended:
		return rt.err
	default:
	}
	first := !rt.closing.Swap(true)
	rt.still.Lock() // an upgrade sees that it is to end, and lets the children hear again
	rt.planStop(ctx, first)
	rt.still.Unlock()
	rt.stopListening(ctx)
	rt.tree.Stop()
	select {
	case <-rt.ended:
		return rt.err
	case <-ctx.Done():
	}
	rt.manager.Load().forced()
	for _, p := range rt.children.all() {
		p.killFor(KilledEnd)
	}
	rt.tree.Kill()
	for _, p := range rt.children.all() { // those that were added since
		p.killFor(KilledEnd)
	}
	<-rt.ended
	return errors.Join(fmt.Errorf("coppice: shutdown: killed what was left: %w", ctx.Err()), rt.err)
}

// stopListening closes the listening sockets once the connections in their backlogs are accepted
// and claimed. Later calls wait for the first.
func (rt *Runtime) stopListening(ctx context.Context) {
	rt.closed.Do(func() {
		rt.children.drainListeners(ctx)
		rt.sockets.Close()
	})
}

// planStop shares what the children may take for their stop out within ctx, and logs the shutdown
// if it is the first call.
func (rt *Runtime) planStop(ctx context.Context, first bool) {
	deadline, bounded := ctx.Deadline()
	if !bounded {
		if first {
			rt.log.Info("shutting down")
		}
		return
	}
	sum := rt.stops.begin(deadline)
	if !first {
		return
	}
	within := time.Until(deadline).Round(time.Millisecond)
	rt.log.Info("shutting down", "within", within.String())
	if sum > within {
		rt.log.Info("the pools and programs stop one after the other and may take longer than that: each gets its share", "sum", sum.String(), "within", within.String())
	}
}

// stopAsked answers a Stop of the master's PID. A child cannot end its tree.
func (rt *Runtime) stopAsked(from string) {
	if from != rt.system.Address() {
		if n := rt.stopsRefused.Add(1); isPowerOfTwo(n) {
			rt.log.Warn("a child asked the master to stop: refused", "id", from, "times", n)
		}
		return
	}
	rt.tree.Stop()
}

// System returns the master's actor system.
func (rt *Runtime) System() *actors.System { return rt.system }

// Lookup is [Worker.Lookup] from the master.
func (rt *Runtime) Lookup(name string) *actor.PID { return rt.system.Lookup(name) }

// killAll kills the children of the running tree, for a program that must end at once.
func killAll() {
	if rt := running.Load(); rt != nil {
		for _, p := range rt.children.all() {
			p.killFor(KilledEnd)
		}
	}
}

// partingTimeout bounds each orderly end at the end of the tree: of its actors, of its telemetry.
const partingTimeout = 2 * time.Second

// withPartingTimeout runs end with a context of partingTimeout.
func withPartingTimeout(end func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), partingTimeout)
	defer cancel()
	return end(ctx)
}

// ending reports whether the tree is ending.
func (rt *Runtime) ending() bool {
	s := rt.tree.Status()
	return rt.closing.Load() || s == supervisor.Stopping || s == supervisor.Down
}

// settleTimeout bounds the wait for goroutines of the tree, none of which waits for anything.
const settleTimeout = time.Second

// settle waits until the supervisors and the pools have told what they decided before.
func (rt *Runtime) settle() {
	ctx, cancel := context.WithTimeout(context.Background(), settleTimeout)
	defer cancel()
	_ = rt.tree.Turn(ctx)
}

// pids returns the PIDs of the tree's processes, without the master.
func (rt *Runtime) pids() (pids []int) {
	for _, w := range rt.children.all() {
		if pid := w.backend.pid(); pid != 0 { // no goroutine
			pids = append(pids, pid)
		}
	}
	var programs func(*node)
	programs = func(n *node) {
		if p, ok := n.running().(interface{ identity() Identity }); ok && !childproto.IsClosed(n.running().Done()) {
			pids = append(pids, p.identity().PID)
		}
		for _, c := range n.children() {
			programs(c)
		}
	}
	programs(rt.root)
	return pids
}

// operatedParts returns what an operator sees besides what the methods of the Runtime show.
func (rt *Runtime) operatedParts() operatedParts {
	return operatedParts{
		log: rt.log, began: rt.began, generation: rt.generations.now, events: rt.events, lines: rt.lines, children: rt.children, sockets: rt.sockets, actorSystem: rt.System,
		state: func() State { return State(rt.tree.Status().String()) }, pids: rt.pids, settle: rt.settle, hosts: rt.operateHosts,
		metrics: func() (page tracing.MetricsPage, ok bool) {
			page, ok = rt.pipeline.(tracing.MetricsPage)
			return page, ok
		},
	}
}

// ownActors starts the master's own actors and registers the master's name.
func (rt *Runtime) ownActors(ctx context.Context) error {
	if err := rt.system.Register(ctx, childproto.MasterName, rt.system.Process()); err != nil {
		return err
	}
	if _, err := rt.system.Spawn(ctx, treeName, func() actor.Actor { return treeActor{rt.Snapshot} }); err != nil {
		return err
	}
	_, err := rt.system.Spawn(ctx, tickets.Name, func() actor.Actor { return tickets.NewActor(rt.children.poolOf) })
	if err == nil && rt.cfg.Hosts != nil {
		err = rt.cfg.Hosts.Begin(ctx, rt)
	}
	return err
}
