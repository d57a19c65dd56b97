package coppice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/cgroup"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/handover"
	"github.com/coppice-go/coppice/runtime/internal/logqueue"
	"github.com/coppice-go/coppice/runtime/internal/memfile"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/started"
	"github.com/coppice-go/coppice/runtime/internal/telemetry"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// upgradeTimeout bounds an upgrade from its begin to the exec, without the wait for a reload, if
// ctx has no earlier end.
const upgradeTimeout = time.Minute

// checkUpgrade does the work of CheckUpgrade.
func (rt *Runtime) checkUpgrade(ctx context.Context) (plan []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	exe, err := rt.successor(ctx)
	if err != nil {
		return nil, err
	}
	defer exe.Close() // a file that was only read
	return rt.checkProgram(ctx, exe)
}

// upgrade does the work of Upgrade.
func (rt *Runtime) upgrade(ctx context.Context) (err error) {
	if rt.test.Running() {
		return &UpgradeError{"check", errors.New("the program runs tests, which would begin anew")}
	}
	rt.upgrades.Add(1)
	got := sync.OnceFunc(func() { rt.upgrades.Add(-1) })
	defer got()
	select {
	case rt.reload <- struct{}{}:
		got()
		defer func() { <-rt.reload }()
		rt.stopWatch()
	case <-ctx.Done():
		return &UpgradeError{"wait", fmt.Errorf("a reload is under way: %w", ctx.Err())}
	case <-rt.ended:
		return &UpgradeError{"wait", ErrStopping}
	}
	return rt.upgradeTo(ctx, nil, "", nil)
}

// upgradeTo replaces this image by that of exe; nil = the successor. back is why exe is the program
// of before, and under the carrier of the upgrade that is taken back.
func (rt *Runtime) upgradeTo(ctx context.Context, exe *executable, back string, under []byte) (err error) {
	began := time.Now()
	trace := telemetry.Upgrade{Began: began, Under: under}
	done := rt.manager.Load().reloading()
	defer func() {
		done(err)
		if e, ok := errors.AsType[*UpgradeError](err); ok {
			rt.lifecycle.BeginUpgrade(trace, e.Step).End(err)
		}
		rt.log.Error("upgrade failed: the program goes on as it is", "took", time.Since(began), "err", err)
		rt.events.Put(Event{Time: time.Now(), Kind: TreeUpgraded, Took: time.Since(began), Err: err, Fault: true})
	}()
	rt.events.Put(Event{Time: began, Kind: TreeUpgrading})
	beforeUpgradeStep("check")
	ctx, cancel := context.WithTimeout(ctx, upgradeTimeout)
	defer cancel()
	if exe == nil {
		if exe, err = rt.successor(ctx); err != nil {
			return err
		}
		defer exe.Close() // a file that was only read
	}
	plan, err := rt.checkProgram(ctx, exe)
	if err != nil {
		return err
	}
	rt.log.Info("upgrading", "changes", len(plan))
	for _, line := range plan {
		rt.log.Info("upgrade: " + line)
	}
	trace.Ended(tracing.SpanCheck, time.Now())
	beforeUpgradeStep("wait")
	s := suspension{rt: rt, stopped: map[string]bool{}}
	defer s.resume() // the exec does not return
	var books map[string]supervisor.Book
	err = rt.awaitQuiet(ctx, func() (busy error) { books, busy = rt.quiet(); return busy })
	if err != nil { // Funcs run as long as possible
		return err
	}
	_ = withPartingTimeout(rt.lifecycle.Send) // what is not sent is lost, as with any end of the program
	trace.Ended(tracing.SpanWait, time.Now())
	beforeUpgradeStep("stop")
	if err := s.stopFuncs(ctx, runningIn(books)); err != nil {
		return &UpgradeError{"suspend", err}
	}
	beforeUpgradeStep("suspend")
	state, err := s.suspend(ctx)
	if err != nil {
		return err
	}
	trace.Ended(tracing.SpanSuspend, time.Now())
	if state.Crashes, err = rt.crashes.save(); err != nil {
		return &UpgradeError{"suspend", err}
	}
	state.Back, state.Upgrade, state.Funcs, state.Again = back, trace, rt.funcStates.all(), rt.upgrades.Load() > 0
	b, err := state.Encode()
	if err != nil {
		return &UpgradeError{"suspend", err}
	}
	file, err := memfile.Sealed("state", b)
	if err != nil {
		return &UpgradeError{"suspend", err}
	}
	defer file.Close() // a file in memory
	flushLog(rt.log)
	rt.output.Flush(logqueue.FlushTimeout) // the lines that were read
	beforeUpgradeStep("exec")
	ctx, end := context.WithTimeout(ctx, suspendTimeout)
	defer end()
	return &UpgradeError{"exec", s.starts.Exec(ctx, process.Image{
		Executable: exe, Args: started.Args(), Env: os.Environ(), State: file, FDs: s.fds, Last: func() error {
			if rt.ending() || rt.cfg.asked != nil && rt.cfg.asked() { // it was asked to end meanwhile
				return ErrStopping
			}
			return nil
		},
	})}
}

// upgradable returns why the tree cannot be upgraded, whatever the new program is.
func (rt *Runtime) upgradable() error {
	var errs []error
	if rt.cfg.ListenerIsolation == GoroutineIsolation {
		errs = append(errs, errors.New("Config.ListenerIsolation is goroutine: the connections that the master accepts would be lost"))
	}
	var look func(*node)
	look = func(n *node) {
		if p, ok := n.spec.(Pool); ok && p.Command != nil {
			errs = append(errs, fmt.Errorf("the workers of pool %s are other programs, which cannot be taken over yet", n.path))
		}
		if p, ok := n.spec.(Pool); ok && p.Isolation == GoroutineIsolation {
			errs = append(errs, fmt.Errorf("the workers of pool %s are goroutines of the master, and would be lost", n.path))
		}
		for _, c := range n.children() {
			if !slices.Contains(n.declared, c) {
				errs = append(errs, fmt.Errorf("%s was added while the tree ran, and would be lost: delete it first", c.path))
			}
			look(c)
		}
	}
	look(rt.root)
	return errors.Join(append(errs, process.PrepareExec())...)
}

// preview returns what a new program needs to know to say whether it can take over.
func (rt *Runtime) preview() handover.Master {
	s := handover.Master{Tree: rt.declarations.tree(), Host: rt.children.host, Boot: rt.children.boot}
	for _, c := range rt.pools.list() {
		for _, w := range c.settled() {
			s.Workers = append(s.Workers, handover.FormerWorker{Pool: c.path, Hello: w.self()})
		}
	}
	return s
}

// A suspension is a master that stands still: no child starts, no message is read or sent.
type suspension struct {
	rt      *Runtime
	starts  *process.Suspension
	stopped map[string]bool // paths of the Funcs that were stopped for it
	fds     []int           // go with the state; their owners keep them
	undo    []func()        // resume the parts
}

// resume lets the master go on.
func (s *suspension) resume() { s.resumeTo(0) }

// resumeTo resumes what was suspended after the first parts.
func (s *suspension) resumeTo(first int) {
	for _, f := range slices.Backward(s.undo[first:]) {
		f()
	}
	s.undo, s.fds = s.undo[:first], nil
}

// add adds descriptors to those of the state, and returns their indexes.
func (s *suspension) add(fds ...int) (of []int) {
	for _, fd := range fds {
		of = append(of, len(s.fds))
		s.fds = append(s.fds, fd)
	}
	return of
}

// addFiles is add for files; those that are nil are left out.
func (s *suspension) addFiles(files ...*os.File) (of []int, err error) {
	for _, f := range files {
		if f == nil {
			continue
		}
		rc, err := f.SyscallConn()
		if err != nil {
			return nil, err
		}
		if err := rc.Control(func(fd uintptr) { of = append(of, s.add(int(fd))...) }); err != nil {
			return nil, err
		}
	}
	return of, nil
}

// errChanged is the error of a try to suspend the master when a child has ended meanwhile.
var errChanged = errors.New("a child has just ended")

// steadyPoll is how often an upgrade looks whether something is under way.
const steadyPoll = 10 * time.Millisecond

// suspend waits until nothing is under way in the tree, stops the master, and returns its state.
func (s *suspension) suspend(ctx context.Context) (state handover.Master, err error) {
	keep := len(s.undo)
	wait := s.rt.awaitQuiet(ctx, func() (busy error) {
		if state, busy, err = s.trySuspend(ctx); busy != nil {
			s.resumeTo(keep)
		}
		return busy
	})
	return state, cmp.Or(err, wait)
}

// awaitQuiet waits until look returns no error: it looks again and again, and its error is what is
// under way.
func (rt *Runtime) awaitQuiet(ctx context.Context, look func() error) error {
	for {
		busy := look()
		if busy == nil {
			return nil
		}
		select {
		case <-time.After(steadyPoll):
		case <-ctx.Done():
			return &UpgradeError{"wait", fmt.Errorf("%w: %w", busy, ctx.Err())}
		case <-rt.ended:
			return &UpgradeError{"wait", ErrStopping}
		}
	}
}

// suspendTimeout bounds the time in which the master neither goes on nor is replaced.
const suspendTimeout = 2 * time.Second

// trySuspend is one try of suspend. busy is what is under way.
func (s *suspension) trySuspend(ctx context.Context) (state handover.Master, busy, err error) {
	rt := s.rt
	rt.still.Lock()
	s.undo = append(s.undo, rt.still.Unlock)
	if s.starts, err = process.Suspend(ctx); err != nil {
		return state, err, nil
	}
	s.undo = append(s.undo, s.starts.Resume)
	ctx, cancel := context.WithTimeout(ctx, suspendTimeout)
	defer cancel()
	if _, busy := rt.quiet(); busy != nil {
		return state, busy, nil
	}
	defer func() {
		if errors.Is(err, errChanged) {
			busy, err = err, nil
		} else if err != nil {
			err = &UpgradeError{"suspend", err}
		}
	}()
	// The table comes first: what it sends must find Conns that take it. What these bring it from
	// now on goes along with its state.
	if err := rt.sockets.Suspend(ctx); err != nil {
		return state, nil, err
	}
	s.undo = append(s.undo, rt.sockets.Continue)
	state = handover.Master{
		Host: rt.children.host, Boot: rt.children.boot, Tree: rt.declarations.tree(), Began: rt.began, Sizes: rt.sizes.all(), Cgroup: cgroup.Home(), Pools: map[string][]pool.SlotBook{},
	}
	state.Program, state.Dir = started.Known()
	for _, c := range rt.pools.list() {
		for _, w := range c.settled() {
			before, err := w.suspend(ctx, s)
			if err != nil {
				return state, nil, fmt.Errorf("%s: %w", w.name(), err)
			}
			state.Workers = append(state.Workers, before)
		}
	}
	for _, p := range rt.programs(rt.root) {
		before, err := p.body.suspend(ctx, s)
		if err != nil {
			return state, nil, fmt.Errorf("%s: %w", p.name, err)
		}
		state.Programs = append(state.Programs, handover.OtherProgram{Path: p.name, Incarnation: p.inc, Process: before})
	}
	if state.Actors.State, err = rt.system.Suspend(ctx); err != nil {
		return state, nil, err
	}
	s.undo = append(s.undo, rt.system.Resume)
	sockets, fds, err := rt.sockets.State()
	if err != nil {
		return state, nil, err
	}
	state.Sockets = handover.Part{State: sockets, Files: s.add(fds...)}
	if err := s.suspendGeneration(&state); err != nil {
		return state, nil, err
	}
	rt.children.mu.Lock()
	state.LastID, state.LastLink = rt.children.last, rt.children.links
	rt.children.mu.Unlock()
	state.Events = rt.events.Last()
	if state.Books, busy = rt.quiet(); busy != nil { // a child has ended before it was suspended: its place is empty
		return state, busy, nil
	}
	running := runningIn(state.Books)
	for _, w := range state.Workers {
		running[w.Hello.Name] = true // its slot may wait: the next image starts that at once
	}
	for _, c := range rt.pools.list() {
		state.Pools[c.path] = c.book()
	}
	state.Idle = slices.DeleteFunc(rt.idle(running, state.Pools), func(path string) bool { return s.stopped[path] })
	rt.forgetActors(state.Books)
	return state, nil, nil
}

// suspendGeneration adds the programs of the master and of the workers.
func (s *suspension) suspendGeneration(state *handover.Master) error {
	rt := s.rt
	self, err := process.Self()
	if err != nil {
		return err
	}
	s.undo = append(s.undo, func() { _ = self.Close() }) // a file that was only read
	add := func(exe *executable) (e handover.ProgramFile, err error) {
		var files []*os.File
		e.State, files = exe.Suspend()
		e.Files, err = s.addFiles(files...)
		return e, err
	}
	if state.Self, err = add(self); err != nil {
		return err
	}
	gs := &rt.generations
	gs.mu.Lock()
	defer gs.mu.Unlock()
	g := gs.current
	state.Generations = handover.Generations{Last: gs.last, Current: g.number, Config: g.config, Environ: g.environ}
	state.Generations.ProgramFile, err = add(g.exe)
	return err
}

// suspend stops a worker's channel and output, and returns its state.
func (w *poolWorker) suspend(ctx context.Context, s *suspension) (before handover.FormerWorker, err error) {
	b, ok := w.backend.(*processChild)
	if !ok {
		return before, errors.New("it is a goroutine")
	}
	before = handover.FormerWorker{Pool: w.driver.path, Hello: w.self(), Link: w.link.number}
	w.driver.mu.Lock()
	before.Began = w.startedAt
	w.driver.mu.Unlock()
	if before.Process, err = b.suspend(ctx, s); err != nil {
		return before, err
	}
	state, fds, err := w.conn.Suspend(ctx)
	if err != nil {
		if childproto.IsEnd(err) {
			err = errChanged
		}
		return before, err
	}
	s.undo = append(s.undo, w.conn.Resume)
	before.Channel = handover.Part{State: state, Files: s.add(fds...)}
	return before, nil
}

// suspend stops the waiting for the process and the reading of its output, and returns its state.
func (b *processChild) suspend(ctx context.Context, s *suspension) (before handover.RunningProcess, err error) {
	state, pidfd := b.proc.Suspend()
	if state.Ended {
		return before, errChanged // it is about to be forgotten
	}
	s.undo = append(s.undo, b.proc.Resume)
	stdout, out, err := b.stdout.Suspend(ctx)
	if err != nil {
		return before, err
	}
	s.undo = append(s.undo, b.stdout.Resume)
	stderr, errs, err := b.stderr.Suspend(ctx)
	if err != nil {
		return before, err
	}
	s.undo = append(s.undo, b.stderr.Resume)
	files, err := s.addFiles(pidfd, out, errs)
	return handover.RunningProcess{
		State: state, Stdout: stdout, Stderr: stderr, OutPiece: b.outPiece, ErrPiece: b.errPiece, Began: b.began, Sent: b.sigs.Load(), Files: files, Cgroup: b.own.Dir(),
	}, err
}

// programs returns the running programs at and below a node.
func (rt *Runtime) programs(n *node) (ps []*programInstance) {
	if p, is := n.running().(*programInstance); is && !childproto.IsClosed(p.Done()) {
		ps = append(ps, p)
	}
	for _, c := range n.children() {
		ps = append(ps, rt.programs(c)...)
	}
	return ps
}

// stopFuncs stops what runs in the master and cannot be carried over.
func (s *suspension) stopFuncs(ctx context.Context, running map[string]bool) error {
	rt := s.rt
	for _, n := range rt.funcs(rt.root) {
		if !running[n.path] {
			continue
		}
		parent, name := splitPath(n.path)
		at, up, err := rt.supervisorAt(ctx, parent)
		if err != nil {
			return err
		}
		restart := func() {
			_, err := up.RestartChild(context.Background(), name)
			if errors.Is(err, supervisor.ErrNotFound) { // it is temporary
				err = rt.startNode(context.Background(), at, up, n)
			}
			if err != nil {
				rt.log.Error("upgrade: a Func that was stopped for it did not start again", "path", n.path, "err", err)
			}
		}
		if err := up.TerminateChild(ctx, name); errors.Is(err, supervisor.ErrNotFound) {
			continue // it was temporary, and has just ended
		} else if err != nil {
			go restart() // ends when the Func has stopped at last
			return fmt.Errorf("stop %s: %w", n.path, err)
		}
		s.stopped[n.path] = true
		s.undo = append(s.undo, restart)
		if err := rt.funcStates.keep(n.path); err != nil {
			return fmt.Errorf("%s: %w", n.path, err)
		}
	}
	return nil
}

// quiet returns the books of the tree's supervisors, or what is under way in the tree as an error.
func (rt *Runtime) quiet() (map[string]supervisor.Book, error) {
	if rt.ending() {
		return nil, ErrStopping
	}
	for _, c := range rt.pools.list() {
		if busy := c.busy(); busy != "" {
			return nil, errors.New(busy)
		}
	}
	return rt.tree.Books()
}

// busy returns what is under way in the pool; "" if nothing is.
func (c *poolDriver) busy() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.performing || len(c.pendingAnswers[pool.Rolled])+len(c.pendingAnswers[pool.Scaled]) > 0 {
		return "pool " + c.path + " changes"
	}
	for _, w := range c.workers {
		switch {
		case w.finished():
			return "a worker of pool " + c.path + " has just ended"
		case !w.launched:
			return "pool " + c.path + " starts a worker"
		case !w.drainAsked.IsZero():
			return w.name() + " drains"
		case !w.settledLocked():
			return w.name() + " is not ready"
		}
	}
	if !c.kind.ofConfig && len(c.workers) == 0 { // workers need it, and it is back in a moment
		return c.path + " is empty"
	}
	return ""
}

// settledLocked reports whether a worker has its slot, perhaps before its supervisor starts that
// again, or is a spare that waits for one.
func (w *poolWorker) settledLocked() bool {
	if w.slot == pool.Spare {
		return childproto.IsClosed(w.standby)
	}
	return w.driver.rules.Active(w.id)
}

// settled returns the workers that an upgrade takes over.
func (c *poolDriver) settled() (ws []*poolWorker) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.workers {
		if w.launched && !w.finished() && w.drainAsked.IsZero() && w.settledLocked() {
			ws = append(ws, w)
		}
	}
	slices.SortFunc(ws, func(a, b *poolWorker) int { return a.hello.ID - b.hello.ID })
	return ws
}

// funcs returns the children of the kinds that are stopped for an upgrade, and run.
func (rt *Runtime) funcs(n *node) (fs []*node) {
	if _, is := n.spec.(Func); is {
		return []*node{n}
	}
	for _, c := range n.children() {
		fs = append(fs, rt.funcs(c)...)
	}
	return fs
}

// runningIn returns the paths of the children that run.
func runningIn(books map[string]supervisor.Book) map[string]bool {
	running := map[string]bool{}
	for path, b := range books {
		for _, c := range b.Children {
			running[pathInTree(path+"/"+c.ID)] = c.Status == supervisor.Running
		}
	}
	return running
}

// idle returns the paths of the children that do not run: they have ended for good, were stopped,
// or wait for their restart. What is below them is not among them.
func (rt *Runtime) idle(running map[string]bool, pools map[string][]pool.SlotBook) (paths []string) {
	var look func(*node)
	look = func(n *node) {
		for _, c := range n.declared {
			if running[c.path] {
				look(c)
			} else {
				paths = append(paths, c.path)
			}
		}
	}
	look(rt.root)
	for path, slots := range pools {
		for _, v := range slots {
			if at := workerPool.names(path, v.N).registered; path != childproto.ListenersName && !running[at] {
				paths = append(paths, at)
			}
		}
	}
	return paths
}

// forgetActors makes the actors of the master new ones in the books: they begin in the next image.
func (rt *Runtime) forgetActors(books map[string]supervisor.Book) {
	for path, b := range books {
		for i := range b.Children {
			if n := rt.root.find(pathInTree(path + "/" + b.Children[i].ID)); n != nil {
				if _, is := n.spec.(Actor); is {
					b.Children[i].Status = supervisor.Down
				}
			}
		}
	}
}
