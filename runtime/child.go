package coppice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/httpdrain"
	"github.com/coppice-go/coppice/runtime/internal/memfile"
	"github.com/coppice-go/coppice/runtime/internal/telemetry"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

const (
	// helloTimeout bounds a child's wait for the master's first frame.
	helloTimeout = 30 * time.Second

	// partingTimeout bounds what a child does after its worker function has
	// returned: flush spans, say goodbye.
	partingTimeout = 2 * time.Second
)

// Why a child stops: the causes of its worker's context.
var (
	errStopRequested = errors.New("coppice: asked to stop")
	errOrphan        = fmt.Errorf("%w: finishing what was begun", ErrMasterGone)
)

// child is the life of one child of the tree from its own side, in a process of
// its own or as a goroutine of the master.
type child struct {
	cfg  Config
	root *node
	log  *slog.Logger
	conn *fdipc.Conn

	process bool   // it has a process of its own
	config  []byte // of a goroutine: the master's, which a hello may be too small for

	hello    chan receivedHello // one value: the handler's to run
	equipped chan struct{}      // closed when the fields below are; the handler waits for it

	identity     childproto.Hello
	pool         Pool     // of a worker
	spanTable    *os.File // for open spans; nil without tracing, and once the pipeline has it
	pipeline     tracing.Pipeline
	channelStats telemetry.Transport
	system       *actors.System
	netListeners *netactor.Listeners  // of a worker
	dispatcher   *netactor.Dispatcher // of the listener process

	serverMu sync.Mutex
	servers  map[*http.Server]*httpdrain.Drain // that Worker.Serve serves

	linkMu      sync.Mutex
	links       []siblingLink // that are open
	linksClosed bool          // it has ended: no more links
	listenerID  uint64        // of a worker: the ID of the newest listener process it has a link to

	ctx          context.Context // the worker's: ends when the drain begins
	stop         context.CancelCauseFunc
	drain        context.Context // ends at the drain's deadline
	endDrain     func()          // counts what is open as forced, and ends drain
	idleGrace    context.Context // ends when the first idle connections are closed, at the latest with linger
	endIdleGrace context.CancelFunc
	idleLimit    context.Context // ends when the last idle connections are closed, at the latest with drain
	endIdleLimit context.CancelFunc
	forced       atomic.Int64 // connections cut at a deadline
	spare        spareSlot
	ready        func() error
	stacksMu     sync.Mutex  // held while its stacks are told
	exiting      atomic.Bool // it has said all that it had to say and ends
}

// receivedHello is the master's first frame.
type receivedHello struct {
	hello     childproto.Hello
	spanTable *os.File
	err       error // why the child lacks what the frame brought
}

func newChild(cfg Config, root *node) *child {
	c := &child{
		cfg: cfg, root: root, log: cfg.Logger,
		hello: make(chan receivedHello, 1), equipped: make(chan struct{}),
		servers: map[*http.Server]*httpdrain.Drain{},
	}
	c.spare.assigned = make(chan childproto.AssignFrame, 1)
	c.ctx, c.stop = context.WithCancelCause(context.Background())
	drain, end := context.WithCancel(context.Background())
	c.drain, c.endDrain = drain, sync.OnceFunc(func() {
		c.countOpenForced()
		end()
		c.sendForced()
	})
	c.idleLimit, c.endIdleLimit = context.WithCancel(c.drain)
	c.idleGrace, c.endIdleGrace = context.WithCancel(c.idleLimit)
	c.ready = sync.OnceValue(c.sendReady)
	return c
}

// transport is the configuration of the child's end of its channel.
func (c *child) transport() fdipc.Config {
	cfg := childproto.ConnConfig(c.handle, c.channelLost)
	cfg.NoFiles = c.handlesLost
	return cfg
}

// handlesLost takes a frame of the master's whose descriptors did not arrive: this process has
// no room for them. Who waits for them hears of it.
func (c *child) handlesLost(conn *fdipc.Conn, f *fdipc.Frame) {
	if f.Kind == childproto.FrameHello {
		c.log.Error("out of descriptors: what the master's welcome brings is lost")
		c.receiveHello(f)
		return
	}
	<-c.equipped
	switch {
	case c.system == nil: // unfit
	case f.Kind == childproto.FrameLink:
		if to, err := childproto.Decode[childproto.Sibling](f); err == nil {
			c.reportNoLink(to, os.NewSyscallError("recvmsg", syscall.EMFILE))
		}
	case c.system.HandlesLost(childproto.MasterAddress, f):
	case c.netListeners != nil:
		c.netListeners.HandlesLost(conn, f)
	default:
		c.dispatcher.HandlesLost(conn, f)
	}
}

// handle takes a frame of the master's, on the channel's reader.
func (c *child) handle(conn *fdipc.Conn, f *fdipc.Frame) {
	if f.Kind == childproto.FrameHello {
		c.receiveHello(f)
		return
	}
	<-c.equipped // the master may speak on before run has read the hello
	var err error
	switch {
	case c.system == nil: // unfit: nothing is for this child
		f.Refuse(fdipc.ReasonClosed)
	case f.Kind == childproto.FrameStop:
		var s childproto.StopRequest
		if s, err = childproto.Decode[childproto.StopRequest](f); err == nil {
			c.beginDrain(errStopRequested, s.Drain, s.Idle)
		}
	case f.Kind == childproto.FrameLink:
		err = c.link(f)
	case f.Kind == childproto.FrameWorkerGone:
		err = c.workerGone(f)
	case f.Kind == childproto.FrameStopAccepting:
		c.stopAccepting()
	case f.Kind == childproto.FrameAssign:
		var a childproto.AssignFrame
		if a, err = childproto.Decode[childproto.AssignFrame](f); err == nil {
			c.assign(a)
		}
	case f.Kind == childproto.FrameHeartbeat:
		var b childproto.HeartbeatFrame
		if b, err = childproto.Decode[childproto.HeartbeatFrame](f); err == nil {
			c.answerHeartbeat(b)
		}
	case f.Kind == childproto.FrameStacks:
		var s childproto.StacksFrame
		if s, err = childproto.Decode[childproto.StacksFrame](f); err == nil {
			go c.sendStacks(s.N) // bounded
		}
	case c.system.HandleFrame(childproto.MasterAddress, f):
	case c.netListeners != nil && c.netListeners.HandleFrame(conn, f):
	case c.dispatcher != nil && c.dispatcher.HandleFrame(netactor.Worker{}, conn, f):
	default:
		f.Refuse(fdipc.ReasonUnknown) // a newer master's: skipped by rule
	}
	if err != nil {
		f.Refuse(fdipc.ReasonUnknown)
		c.log.Error("bad frame from the master", "err", err)
	}
}

// readConfig takes a configuration of n bytes that came beside the hello.
func readConfig(h *fdipc.Handle, n int) ([]byte, error) {
	f, err := h.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return memfile.Map(f, n)
}

func (c *child) receiveHello(f *fdipc.Frame) {
	w, err := childproto.Decode[childproto.Hello](f)
	if err != nil {
		c.log.Error("bad frame from the master", "err", err)
		return
	}
	handles := f.Handles
	if n := len(handles) - 1; w.ConfigSize > 0 && !c.process {
		w.Config = c.config
	} else if w.ConfigSize > 0 && n >= 0 {
		if w.Config, err = readConfig(handles[n], w.ConfigSize); err != nil {
			err = fmt.Errorf("coppice: the configuration that came with the welcome: %w", err)
		}
		handles = handles[:n]
	} else if w.ConfigSize > 0 {
		err = fmt.Errorf("coppice: no configuration came with the welcome: %w", os.NewSyscallError("recvmsg", syscall.EMFILE))
	}
	lacks := err
	var table *os.File
	if len(handles) == 1 {
		if table, err = handles[0].File(); err != nil {
			c.log.Warn("no table of open spans", "err", err)
		}
	}
	select {
	case c.hello <- receivedHello{w, table, lacks}:
	default: // a second hello changes nothing
		if table != nil {
			table.Close()
		}
	}
}

// channelLost is told that the channel is gone. Unless a stop was asked for before, the
// master has died, or is none that can be understood.
func (c *child) channelLost(_ *fdipc.Conn, err error) {
	why := errOrphan
	if err != nil && !childproto.IsEnd(err) {
		why = fmt.Errorf("%w: the channel to it is ended: %w", ErrMasterGone, err)
		c.log.Error("the channel to the master is ended", "err", err)
	}
	c.beginDrain(why, c.cfg.OrphanDrain, 0)
}

// beginDrain ends the worker's context, the drain's after d, and the wait for idle
// connections after idle. A later call may bring a deadline nearer, never further.
func (c *child) beginDrain(why error, d, idle time.Duration) {
	c.stop(why)
	endAfter(c.drain, d, c.endDrain)
	keep, last := idleTimes(d, idle)
	endAfter(c.idleGrace, keep, c.endIdleGrace)
	if last < d { // else the one ends with the other: who is cut then is counted there
		endAfter(c.idleLimit, last, c.endIdleLimit)
	}
}

// idleTimes returns for how long connections without a request are kept in a drain of d that
// is to close them after idle: until then all, and when the last one is closed. Thousands of
// them take a while on a busy machine, and the worker has to end by itself.
func idleTimes(d, idle time.Duration) (keep, last time.Duration) {
	last = min(idle, d*3/4)
	return last * 2 / 3, last
}

// endAfter ends ctx after d, by cancel. A timer would keep hold of a worker that is a
// goroutine, and of all it had, when that has long ended.
func endAfter(ctx context.Context, d time.Duration, cancel func()) {
	t := time.AfterFunc(max(d, 0), cancel)
	context.AfterFunc(ctx, func() { t.Stop() })
}

// countForcedEarly is force for what is cut before the drain's end, when all that is open
// counts.
func (c *child) countForcedEarly(n int) {
	if c.drain.Err() == nil {
		c.countForced(n)
	}
}

// countOpenForced counts the connections that are open. At the drain's end it comes before
// anybody knows of the end: who is cut by it is not to close them first.
func (c *child) countOpenForced() {
	if own := c.listeners(); own != nil {
		c.countForced(own.Conns())
	}
}

// sendForced tells the master what the drain has cut by its deadline: the last word, which has
// the same, may be late, when there is much to close and little time.
func (c *child) sendForced() {
	if n := int(c.forced.Load()); n > 0 && c.conn != nil {
		_ = c.conn.TrySend(childproto.NewFrame(childproto.FrameForcedConns, childproto.ExitNotice{Forced: n})) // a master that is gone counts nothing
	}
}

// listeners is what a worker listens on; nil of another child, and before it is equipped.
func (c *child) listeners() *netactor.Listeners {
	select {
	case <-c.equipped:
		return c.netListeners
	default:
		return nil
	}
}

// countForced counts connections that the drain has cut.
func (c *child) countForced(n int) { c.forced.Add(int64(n)) }

// run lives the child's life over conn and returns why it ended. newPipeline
// makes the process's tracing once it is known which process this is.
func (c *child) run(conn *fdipc.Conn, newPipeline func(childproto.Hello) tracing.Pipeline) childproto.ExitNotice {
	c.conn = conn
	c.channelStats.Add(conn)
	select {
	case g := <-c.hello:
		if g.err != nil {
			close(c.equipped)
			return childproto.ExitNotice{Kind: childproto.NoticeError, Text: g.err.Error()}
		}
		c.identity, c.spanTable = g.hello, g.spanTable
	case <-c.ctx.Done():
		close(c.equipped)
		return childproto.ExitNotice{Kind: childproto.NoticeUnfit, Text: context.Cause(c.ctx).Error()}
	case <-time.After(helloTimeout):
		close(c.equipped)
		return childproto.ExitNotice{Kind: childproto.NoticeUnfit, Text: fmt.Sprintf("coppice: no welcome from the master within %v", helloTimeout)}
	}
	life, err := c.checkHello()
	if err == nil {
		c.pipeline = newPipeline(c.identity)
		err = c.equip()
	}
	close(c.equipped)
	if err != nil {
		return childproto.ExitNotice{Kind: childproto.NoticeUnfit, Text: err.Error()}
	}

	bye := life()

	ctx, cancel := context.WithTimeout(context.Background(), partingTimeout)
	defer cancel()
	if err := errors.Join(c.system.Shutdown(ctx), c.pipeline.Shutdown(ctx)); err != nil {
		c.log.Warn("child: ending", "name", c.identity.Name, "err", err)
	}
	return bye
}

// checkHello finds what the hello asks this program to be, or why it cannot.
func (c *child) checkHello() (life func() childproto.ExitNotice, err error) {
	w := c.identity
	if w.Protocol != childproto.Version {
		return nil, fmt.Errorf("coppice: the master speaks protocol %d, this program %d", w.Protocol, childproto.Version)
	}
	switch w.Role {
	case childproto.RoleListener:
		return c.dispatchConnections, nil
	case childproto.RoleWorker:
		if d := difference(w.Tree, c.root.describe()); d != "" {
			return nil, fmt.Errorf("coppice: this program's tree is not its master's: %s", d)
		}
		var ok bool
		if c.pool, ok = c.root.find(w.Path).spec.(Pool); !ok { // the trees are equal: it is there
			return nil, fmt.Errorf("coppice: %q is not a pool", w.Path)
		}
		return c.work, nil
	}
	return nil, fmt.Errorf("coppice: role %q is not known to this release", w.Role)
}

// awaitEquipped waits until the child is equipped, and tells whether it is.
func (c *child) awaitEquipped(ctx context.Context) bool {
	select {
	case <-c.equipped:
		return c.system != nil
	case <-ctx.Done():
		return false
	}
}

// equip gives the child what it needs before frames arrive for it.
func (c *child) equip() error {
	if c.process {
		keepThreads(spareThreads)
	}
	system, err := actors.NewSystem(actors.Config{
		Address: strconv.Itoa(c.identity.ID), Logger: c.log,
		Hooks: actors.Hooks{Stop: func(string) { c.beginDrain(errStopRequested, c.identity.Drain, c.identity.Drain) }},
	})
	if err != nil {
		return err
	}
	if err := system.Attach(childproto.MasterAddress, 0, c.conn); err != nil {
		return err
	}
	system.Uplink(childproto.MasterAddress)
	tracer := tracing.New(c.pipeline.TracerProvider()).WithMeter(c.pipeline.Meter())
	switch c.identity.Role {
	case childproto.RoleListener:
		c.dispatcher = netactor.NewDispatcher(netactor.DispatcherConfig{Logger: c.log, Tracer: tracer, Functions: c.root.functions})
	case childproto.RoleWorker:
		c.netListeners = netactor.NewListeners(netactor.ListenersConfig{
			Logger: c.log, Tracer: tracer, Master: c.conn, Pool: c.identity.Path, Stopping: c.ctx.Done(),
		})
	}
	c.system = system
	if c.process {
		telemetry.Register(c.pipeline.Meter(), &c.channelStats, system)
	}
	return nil
}

// work runs the worker function to its end.
func (c *child) work() childproto.ExitNotice {
	err := c.awaitSlot()
	if err == nil {
		err = c.pool.Worker(c.ctx, &Worker{c})
	}
	asked := c.ctx.Err() != nil
	again := c.pool.Restart == supervisor.Permanent || c.pool.Restart == supervisor.Transient && err != nil
	if !asked && again {
		c.netListeners.Fail()
	}
	c.endDrain() // what the worker function has not waited for is cut
	_ = c.netListeners.Drain(c.drain)
	_ = c.netListeners.Close() // packet sockets
	bye := childproto.ExitNotice{Kind: childproto.NoticeNormal, Forced: int(c.forced.Load())}
	switch {
	case asked && (err == nil || errors.Is(err, context.Canceled)):
		bye.Kind = childproto.NoticeShutdown
	case err != nil:
		bye.Kind, bye.Text = childproto.NoticeError, err.Error()
	}
	return bye
}

// closeSockets closes the sockets of a worker that is a goroutine and has ended, or is given
// up: a process takes its own with it.
func (c *child) closeSockets() {
	if own := c.listeners(); own != nil {
		own.Fail() // what is a close to the master was told before: it has no time to say more, as a process
		_ = own.Close()
		own.Cut()
	}
}

// sendReady tells the master that the worker does its work: what it listens on
// brings it connections from now on.
func (c *child) sendReady() error {
	if c.netListeners != nil {
		if err := c.netListeners.Joined(c.ctx); err != nil {
			return fmt.Errorf("coppice: ready: %w", context.Cause(c.ctx))
		}
	}
	if err := c.conn.Send(c.ctx, childproto.NewFrame(childproto.FrameReady, struct{}{})); err != nil {
		return fmt.Errorf("coppice: ready: %w", err)
	}
	return nil
}

// sendExitNotice says goodbye and closes the channel.
func (c *child) sendExitNotice(bye childproto.ExitNotice) {
	ctx, cancel := context.WithTimeout(context.Background(), partingTimeout)
	defer cancel()
	_ = c.conn.Send(ctx, childproto.NewFrame(childproto.FrameExitNotice, bye.Cut())) // when it fails there is nobody to tell
	c.exiting.Store(true)
	_ = c.conn.Close()
	c.closeLinks()
	c.endDrain()
}
