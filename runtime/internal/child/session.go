package child

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/dispatch"
	"github.com/coppice-go/coppice/netactor/listen"
	"github.com/coppice-go/coppice/runtime/internal/canary"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/declaration"
	"github.com/coppice-go/coppice/runtime/internal/httpdrain"
	"github.com/coppice-go/coppice/runtime/internal/inflight"
	"github.com/coppice-go/coppice/runtime/internal/memfile"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
	"github.com/coppice-go/coppice/runtime/internal/telemetry"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

const (
	// helloTimeout bounds a child's wait for the master's first frame.
	helloTimeout = 30 * time.Second

	// partingTimeout bounds what a child does after its worker function has returned: flush spans,
	// send the exit notice.
	partingTimeout = 2 * time.Second
)

// Session is one child of the tree, from the master's first frame to the child's last.
type Session struct {
	cfg  Config
	log  *slog.Logger
	conn *fdipc.Conn

	process bool // it is a separate process, not a goroutine

	hello    chan receivedHello // one value: from the handler to Run
	equipped chan struct{}      // closed when the fields below are; the handler waits for it

	orphanDrain atomic.Int64 // nanoseconds that it drains after its master is gone

	identity     childproto.Hello
	program      Program  // of a worker
	spanTable    *os.File // for open spans; nil without tracing, and after the pipeline has taken it
	pipeline     tracing.Pipeline
	channelStats telemetry.Transport
	system       *actors.System
	master       string               // its address
	netListeners *listen.Listeners    // of a worker
	dispatcher   *dispatch.Dispatcher // of the listener process

	gate     requestGate // of the requests of servers
	serverMu sync.Mutex
	servers  map[*http.Server]*httpdrain.Drain // the servers that Worker.Serve serves

	linkMu      sync.Mutex
	links       []siblingLink // the open links
	linksClosed bool          // the child has ended: no more links
	listenerID  uint64        // of a worker: the ID of the newest listener process that it has a link to

	ctx          context.Context // the worker's: ends when the drain begins
	stop         context.CancelCauseFunc
	drain        context.Context // ends at the drain's deadline
	endDrain     func()          // counts the open connections as forced, and ends drain
	idleGrace    context.Context // ends when the first idle connections are closed, at the latest with idleLimit
	endIdleGrace context.CancelFunc
	idleLimit    context.Context // ends when the last idle connections are closed, at the latest with drain
	endIdleLimit context.CancelFunc
	forced       atomic.Int64 // connections cut at a deadline
	last         atomic.Bool  // it drains, and no other takes its place
	spare        spareSlot
	figures      *canary.Recorder // nil in a pool without a canary
	ready        func() error
	setTitle     func(string) error // nil for a goroutine
	stacksMu     sync.Mutex         // held while the stacks are taken and sent
	exiting      atomic.Bool        // it has sent its exit notice, and ends
}

// receivedHello is the master's first frame.
type receivedHello struct {
	hello     childproto.Hello
	spanTable *os.File
	err       error // why the configuration of the frame is missing
}

// New returns a child that has no frame from its master yet.
func New(cfg Config) *Session {
	s := &Session{
		cfg: cfg, log: cfg.Logger,
		hello: make(chan receivedHello, 1), equipped: make(chan struct{}),
		servers: map[*http.Server]*httpdrain.Drain{},
	}
	s.gate.tell = func(k childproto.GuardedKey) { _ = s.conn.TrySend(childproto.NewFrame(childproto.FrameGuardedKey, k)) } // a report that is lost is made again
	s.orphanDrain.Store(int64(cfg.OrphanDrain))
	s.spare.assigned = make(chan childproto.AssignFrame, 1)
	s.ctx, s.stop = context.WithCancelCause(context.Background())
	drain, end := context.WithCancel(context.Background())
	s.drain, s.endDrain = drain, sync.OnceFunc(func() {
		s.CountOpenForced()
		end()
		s.sendForced()
	})
	s.idleLimit, s.endIdleLimit = context.WithCancel(s.drain)
	s.idleGrace, s.endIdleGrace = context.WithCancel(s.idleLimit)
	s.ready = sync.OnceValue(s.sendReady)
	return s
}

// ConnConfig returns the configuration of the child's end of its channel.
func (s *Session) ConnConfig() fdipc.Config {
	cfg := childproto.ConnConfig(s.handle, s.channelLost)
	cfg.NoFiles = s.handlesLost
	return cfg
}

// handlesLost handles a frame of the master whose descriptors did not arrive, because this process
// has no room for them. It reports the loss to the part of the child that waits for them.
func (s *Session) handlesLost(conn *fdipc.Conn, f *fdipc.Frame) {
	if f.Kind == childproto.FrameHello {
		s.log.Error("out of descriptors: the files of the master's hello are lost")
		s.receiveHello(f)
		return
	}
	<-s.equipped
	switch {
	case s.system == nil: // unfit
	case f.Kind == childproto.FrameLink:
		if to, err := childproto.Decode[childproto.Sibling](f); err == nil {
			s.reportNoLink(to, os.NewSyscallError("recvmsg", syscall.EMFILE))
		}
	case s.system.HandlesLost(s.master, f):
	case s.netListeners != nil:
		s.netListeners.HandlesLost(conn, f)
	default:
		s.dispatcher.HandlesLost(conn, f)
	}
}

// handle handles a frame of the master, on the channel's reader.
func (s *Session) handle(conn *fdipc.Conn, f *fdipc.Frame) {
	if f.Kind == childproto.FrameHello {
		s.receiveHello(f)
		return
	}
	<-s.equipped // the master may send more before Run has read the hello
	var err error
	switch {
	case s.system == nil: // unfit: no frame is for this child
		f.Refuse(fdipc.ReasonClosed)
	case f.Kind == childproto.FrameStop:
		err = childproto.Handle(f, func(r childproto.StopRequest) {
			if r.Park && s.netListeners != nil {
				s.netListeners.Park()
			}
			if r.Drain > 0 && !r.Park {
				s.last.Store(true)
			}
			s.beginDrain(errStopRequested, r.Drain, r.Idle)
		})
	case f.Kind == childproto.FrameLink:
		err = s.link(f)
	case f.Kind == childproto.FrameWorkerGone:
		err = childproto.Handle(f, s.workerGone)
	case f.Kind == childproto.FrameStopAccepting:
		err = childproto.Handle(f, s.stopAccepting)
	case f.Kind == childproto.FrameAssign:
		err = childproto.Handle(f, s.assign)
	case f.Kind == childproto.FrameHeartbeat:
		err = childproto.Handle(f, s.answerHeartbeat)
	case f.Kind == childproto.FrameGuard:
		if s.dispatcher != nil {
			err = childproto.Handle(f, s.guardListeners)
		} else {
			err = s.gate.receive(f)
		}
	case f.Kind == childproto.FrameStacks:
		err = childproto.Handle(f, func(q childproto.StacksFrame) {
			if q.Profile != "" {
				go s.sendProfile(q) // ends with the profile's time and the send, which are bounded
				return
			}
			go s.sendStacks(q.N) // ends with the send, which is bounded
		})
	case s.system.HandleFrame(s.master, f):
	case s.netListeners != nil && s.netListeners.HandleFrame(conn, f):
	case s.dispatcher != nil && s.dispatcher.HandleFrame(netactor.Worker{}, conn, f):
	default:
		f.Refuse(fdipc.ReasonUnknown) // from a newer master: such a frame is skipped
	}
	if err != nil {
		f.Refuse(fdipc.ReasonUnknown)
		s.log.Error("bad frame from the master", "err", err)
	}
}

// readConfig reads a configuration of n bytes that came with the hello.
func readConfig(h *fdipc.Handle, n int) ([]byte, error) {
	f, err := h.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return memfile.Map(f, n)
}

func (s *Session) receiveHello(f *fdipc.Frame) {
	w, err := childproto.Decode[childproto.Hello](f)
	if err != nil {
		s.log.Error("bad frame from the master", "err", err)
		return
	}
	handles := f.Handles
	if n := len(handles) - 1; w.ConfigSize > 0 && !s.process {
		w.Config = s.cfg.Configuration
	} else if w.ConfigSize > 0 && n >= 0 {
		if w.Config, err = readConfig(handles[n], w.ConfigSize); err != nil {
			err = fmt.Errorf("coppice: the configuration that came with the hello: %w", err)
		}
		handles = handles[:n]
	} else if w.ConfigSize > 0 {
		err = fmt.Errorf("coppice: no configuration came with the hello: %w", os.NewSyscallError("recvmsg", syscall.EMFILE))
	}
	lacks := err
	var table *os.File
	if len(handles) == 1 {
		if table, err = handles[0].File(); err != nil {
			s.log.Warn("no table of open spans", "err", err)
		}
	}
	select {
	case s.hello <- receivedHello{w, table, lacks}:
		s.orphanDrain.Store(int64(w.OrphanDrain))
	default: // a second hello changes nothing
		if table != nil {
			table.Close()
		}
	}
}

// channelLost handles the end of the channel. Unless the master asked for a stop before, it has
// died, or it sends frames that this program does not understand.
func (s *Session) channelLost(_ *fdipc.Conn, err error) {
	why := errOrphan
	if err != nil && !childproto.IsEnd(err) {
		why = fmt.Errorf("%w: the channel to it has ended: %w", ErrMasterGone, err)
		s.log.Error("the channel to the master has ended", "err", err)
	}
	s.beginDrain(why, time.Duration(s.orphanDrain.Load()), 0)
}

// beginDrain ends the worker's context at once, the drain's context after d, and the wait for idle
// connections after idle. A later call may make a deadline earlier, never later.
func (s *Session) beginDrain(why error, d, idle time.Duration) {
	s.stop(why)
	endAfter(s.drain, d, s.endDrain)
	keep, last := idleTimes(d, idle)
	endAfter(s.idleGrace, keep, s.endIdleGrace)
	if last < d { // otherwise idleLimit ends with drain, and CountOpenForced counts what is cut
		endAfter(s.idleLimit, last, s.endIdleLimit)
	}
}

// idleTimes returns two times for a drain of d that closes connections without a request after
// idle: all are kept for keep, and the last one is closed after last. In between they are closed in
// rounds, because thousands take a while on a busy machine, and the worker must end before d.
func idleTimes(d, idle time.Duration) (keep, last time.Duration) {
	last = min(idle, d*3/4)
	return last * 2 / 3, last
}

// endAfter ends ctx after d, by cancel. It stops the timer when ctx ends: a plain timer would keep
// a finished goroutine worker reachable until it fires.
func endAfter(ctx context.Context, d time.Duration, cancel func()) {
	t := time.AfterFunc(max(d, 0), cancel)
	context.AfterFunc(ctx, func() { t.Stop() })
}

// countForcedEarly counts connections that are cut before the drain's end. At the drain's end,
// CountOpenForced counts all open ones. An idle one, whose client has not asked, is no loss where
// no other worker is there for its next request.
func (s *Session) countForcedEarly(n int, asked bool) {
	if s.drain.Err() == nil && (asked || !s.last.Load()) {
		s.countForced(n)
	}
}

// CountOpenForced counts the open connections as forced, also those that the listener process has
// not claimed back: whether it still will is not known. It must run before the drain's context
// ends; otherwise the worker could close connections before they are counted.
func (s *Session) CountOpenForced() {
	if own := s.Listeners(); own != nil {
		s.countForced(own.Conns())
	}
}

// sendForced tells the master how many connections the drain has cut at its deadline. The exit
// notice has the same number, but may be late if there are many connections to close and little
// time.
func (s *Session) sendForced() {
	if n := int(s.forced.Load()); n > 0 && s.conn != nil {
		_ = s.conn.TrySend(childproto.NewFrame(childproto.FrameForcedConns, childproto.ExitNotice{Forced: n})) // on an error the master is gone
	}
}

// Listeners returns the worker's listeners; nil for another child, and before the worker is
// equipped.
func (s *Session) Listeners() *listen.Listeners {
	select {
	case <-s.equipped:
		return s.netListeners
	default:
		return nil
	}
}

// showName makes ps and top show the child by its name, if it is a process.
func (s *Session) showName(name string) {
	if s.setTitle == nil {
		return
	}
	if err := s.setTitle(filepath.Base(os.Args[0]) + ": " + name); err != nil {
		s.log.Debug("child: no title", "name", name, "err", err)
	}
}

// countForced adds n connections that the drain has cut.
func (s *Session) countForced(n int) { s.forced.Add(int64(n)) }

// Run runs the child over conn and returns why it ended. It calls newPipeline, with the hello, to
// start the process's tracing.
func (s *Session) Run(conn *fdipc.Conn, newPipeline func(childproto.Hello) tracing.Pipeline) childproto.ExitNotice {
	s.conn = conn
	s.channelStats.Add(conn)
	select {
	case g := <-s.hello:
		if g.err != nil {
			close(s.equipped)
			return childproto.ExitNotice{Kind: childproto.NoticeError, Text: g.err.Error()}
		}
		s.identity, s.spanTable = g.hello, g.spanTable
		if g.hello.Figures {
			s.figures = &canary.Recorder{}
		}
		s.showName(s.identity.Name)
	case <-s.ctx.Done():
		close(s.equipped)
		return childproto.ExitNotice{Kind: childproto.NoticeUnfit, Text: context.Cause(s.ctx).Error()}
	case <-time.After(helloTimeout):
		close(s.equipped)
		return childproto.ExitNotice{Kind: childproto.NoticeUnfit, Text: fmt.Sprintf("coppice: no hello from the master within %v", helloTimeout)}
	}
	life, err := s.checkHello()
	if err == nil {
		s.declare()
	}
	if err == nil && s.identity.Role == childproto.RoleCheck {
		close(s.equipped)
		return life()
	}
	if err == nil {
		s.pipeline = newPipeline(s.identity)
		err = s.equip()
	}
	close(s.equipped)
	if err != nil {
		return childproto.ExitNotice{Kind: childproto.NoticeUnfit, Text: err.Error()}
	}

	notice := life()

	ctx, cancel := context.WithTimeout(context.Background(), partingTimeout)
	defer cancel()
	if err := errors.Join(s.system.Shutdown(ctx), s.pipeline.Shutdown(ctx)); err != nil {
		s.log.Warn("child: ending", "name", s.identity.Name, "err", err)
	}
	return notice
}

// checkHello returns the function that runs the role of the hello, or an error if this program
// cannot have that role.
func (s *Session) checkHello() (life func() childproto.ExitNotice, err error) {
	w := s.identity
	if w.Protocol != childproto.Version {
		return nil, fmt.Errorf("coppice: the master speaks protocol %d, this program %d", w.Protocol, childproto.Version)
	}
	switch w.Role {
	case childproto.RoleCheck:
		return s.checkUpgrade, nil
	case childproto.RoleListener:
		return s.dispatchConnections, nil
	case childproto.RoleWorker:
		var ok bool
		if s.program, ok = s.cfg.Program(w.Path, w.Function, s); !ok {
			if w.Function != "" {
				return nil, fmt.Errorf("coppice: this program has not registered the function %s, which the pool %s of its master runs: call "+
					"RegisterFunction before Main, Run or Start, in every process", w.Function, w.Path)
			}
			return nil, fmt.Errorf("coppice: this program has no pool %s, which its master has: it has %s. A worker finds its function by "+
				"the path of its pool, which must be the same in every process", w.Path, declaration.Children(s.cfg.Tree))
		}
		s.gate.key, s.gate.timeouts = s.program.RequestKey, w.Timeouts
		if w.Timeouts.First() > 0 {
			s.gate.timed = make([]atomic.Pointer[httpdrain.Timed], inflight.Slots)
		}
		return s.work, nil
	}
	return nil, fmt.Errorf("coppice: role %q is not known to this release", w.Role)
}

// checkUpgrade says whether this program can take the master over.
func (s *Session) checkUpgrade() childproto.ExitNotice {
	if err := s.cfg.Check(s.identity.Config); err != nil {
		return childproto.ExitNotice{Kind: childproto.NoticeUnfit, Text: err.Error()}
	}
	return childproto.ExitNotice{Kind: childproto.NoticeNormal}
}

// declare sends the master what this program declares of its tree, if that is not what the master
// has: computed values may differ, and so may those of a new release. A goroutine is of the
// master's program.
func (s *Session) declare() {
	if !s.process || s.identity.Tree == declaration.Digest(s.cfg.Tree) {
		return
	}
	f := childproto.NewFrame(childproto.FrameDeclaration, childproto.DeclarationFrame{Lines: declaration.Bounded(s.cfg.Tree)})
	_ = s.conn.Send(s.ctx, f) // on an error the master is gone
}

// AwaitEquipped waits until the child is equipped, or ctx ends, and reports whether it is.
func (s *Session) AwaitEquipped(ctx context.Context) bool {
	select {
	case <-s.equipped:
		return s.system != nil
	case <-ctx.Done():
		return false
	}
}

// equip makes the child's actor system, and its listeners or dispatcher, before the master's
// further frames are handled.
func (s *Session) equip() error {
	if s.process {
		process.KeepThreads(process.SpareThreads)
	}
	system, err := actors.NewSystem(actors.Config{
		Address: childproto.Address(s.identity.Boot, s.identity.ID), Host: s.identity.Host, Logger: s.log,
		Hooks: actors.Hooks{Stop: func(string) { s.beginDrain(errStopRequested, s.identity.Drain, s.identity.Drain) }},
	})
	if err != nil {
		return err
	}
	s.master = childproto.Address(s.identity.Boot, childproto.MasterID)
	if err := system.Attach(s.master, 0, s.conn); err != nil {
		return err
	}
	system.Uplink(s.master)
	tracer := tracing.New(s.pipeline.TracerProvider()).WithMeter(s.pipeline.Meter())
	switch s.identity.Role {
	case childproto.RoleListener:
		s.dispatcher = dispatch.New(dispatch.Config{Logger: s.log, Tracer: tracer, Functions: s.cfg.Hooks, Refused: s.tellRefused})
	case childproto.RoleWorker:
		s.netListeners = listen.New(listen.Config{
			Logger: s.log, Tracer: tracer, Master: s.conn, Pool: s.identity.Path, Stopping: s.ctx.Done(), Serving: s.gate.serving,
		})
	case childproto.RoleCheck: // it has ended by now
	}
	s.system = system
	if s.process {
		telemetry.Register(s.pipeline.Meter(), &s.channelStats, system)
	}
	return nil
}

// Meter returns what the process measures with; nil: nothing.
func (s *Session) Meter() *tracing.Meter { return s.pipeline.Meter() }

// work runs the worker function to its end.
func (s *Session) work() childproto.ExitNotice {
	if s.identity.Timeouts.Soft > 0 {
		go s.gate.expire(s.drain, s.log) // ends with endDrain below
	}
	err := s.awaitSlot()
	if err == nil {
		err = s.program.Run(s.ctx)
	}
	asked := s.ctx.Err() != nil
	again := s.identity.Restart == supervisor.Permanent || s.identity.Restart == supervisor.Transient && err != nil
	if !asked && again {
		s.netListeners.Fail()
	}
	s.endDrain() // cuts the connections that the worker function has not waited for
	_ = s.netListeners.Drain(s.drain)
	_ = s.netListeners.Close() // packet sockets
	notice := childproto.ExitNotice{Kind: childproto.NoticeNormal, Forced: int(s.forced.Load())}
	switch {
	case asked && (err == nil || errors.Is(err, context.Canceled)):
		notice.Kind = childproto.NoticeShutdown
	case err != nil:
		notice.Kind, notice.Text = childproto.NoticeError, err.Error()
	}
	return notice
}

// CloseSockets closes the sockets of a worker that is a goroutine and has ended, or is given up.
// (The end of a process closes its sockets.)
func (s *Session) CloseSockets() {
	if own := s.Listeners(); own != nil {
		own.Fail() // these closes are not reported, as after the end of a process
		_ = own.Close()
		own.Cut()
	}
}

// sendReady tells the master that the worker is ready: all its listeners have joined the rotation.
func (s *Session) sendReady() error {
	if s.netListeners != nil {
		if err := s.netListeners.Joined(s.ctx); err != nil {
			return fmt.Errorf("coppice: ready: %w", context.Cause(s.ctx))
		}
	}
	if err := s.conn.Send(s.ctx, childproto.NewFrame(childproto.FrameReady, struct{}{})); err != nil {
		return fmt.Errorf("coppice: ready: %w", err)
	}
	return nil
}

// End sends the exit notice and closes the channel.
func (s *Session) End(notice childproto.ExitNotice) {
	ctx, cancel := context.WithTimeout(context.Background(), partingTimeout)
	defer cancel()
	_ = s.conn.Send(ctx, childproto.NewFrame(childproto.FrameExitNotice, notice.Cut())) // on an error the master is gone
	s.exiting.Store(true)
	_ = s.conn.Close()
	s.closeLinks()
	s.endDrain()
}

// sendStacks sends the stacks on the data lane: they are large, and the master's control frames
// come first.
func (s *Session) sendStacks(n uint64) {
	s.stacksMu.Lock() // one at a time: frequent requests must not take a MiB each
	defer s.stacksMu.Unlock()
	s.answerStacks(childproto.StacksFrame{N: n, Text: string(stacks.Take())})
}

// sendProfile sends a profile, or what is asked about the actors; at the latest when the drain
// ends.
func (s *Session) sendProfile(q childproto.StacksFrame) {
	answer := childproto.StacksFrame{N: q.N}
	ctx, cancel := context.WithTimeout(s.drain, q.Time)
	defer cancel()
	var v any
	var err error
	switch q.Profile {
	case childproto.ActorList:
		v = s.system.Actors()
	case childproto.ActorState:
		v, err = s.system.Inspect(ctx, q.Actor)
	case childproto.ActorMessages:
		v, err = s.system.WatchMessages(ctx, q.Actor)
	default:
		answer.Data, err = stacks.Profile(s.drain, q.Profile, q.Debug, q.Time)
	}
	if v != nil && err == nil {
		if answer.Data, err = json.Marshal(v); err == nil && len(answer.Data) > stacks.MaxProfile {
			answer.Data, err = nil, fmt.Errorf("the answer has %d bytes, at most %d", len(answer.Data), stacks.MaxProfile)
		}
	}
	if err != nil {
		answer.Data, answer.Err = nil, supervisor.Cut(err.Error())
	}
	s.answerStacks(answer)
}

func (s *Session) answerStacks(answer childproto.StacksFrame) {
	ctx, cancel := context.WithTimeout(context.Background(), partingTimeout)
	defer cancel()
	f := childproto.NewFrame(childproto.FrameStacks, answer)
	f.Lane = fdipc.Data
	if err := s.conn.Send(ctx, f); err != nil {
		s.log.Warn("child: cannot send its stacks or profile to the master", "err", err)
	}
}
