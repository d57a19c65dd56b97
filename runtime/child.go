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
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

const (
	// helloTimeout bounds a child's wait for the master's first frame.
	helloTimeout = 30 * time.Second

	// partingTimeout bounds what a child does after its worker function has
	// returned: flush spans, say goodbye.
	partingTimeout = 2 * time.Second

	// masterAddress is the actor address of the master. Children have their ID.
	masterAddress = "0"
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

	identity     hello
	pool         Pool     // of a worker
	spanTable    *os.File // for open spans; nil without tracing, and once the pipeline has it
	pipeline     tracing.Pipeline
	channelStats transportStats
	system       *actors.System
	netListeners *netactor.Listeners  // of a worker
	dispatcher   *netactor.Dispatcher // of the listener process

	serverMu sync.Mutex
	servers  map[*http.Server]*httpDrain // that Worker.Serve serves

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
	hello     hello
	spanTable *os.File
	err       error // why the child lacks what the frame brought
}

func newChild(cfg Config, root *node) *child {
	c := &child{
		cfg: cfg, root: root, log: cfg.Logger,
		hello: make(chan receivedHello, 1), equipped: make(chan struct{}),
		servers: map[*http.Server]*httpDrain{},
	}
	c.spare.assigned = make(chan assignFrame, 1)
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
	cfg := channel(c.handle, c.channelLost)
	cfg.NoFiles = c.handlesLost
	return cfg
}

// handlesLost takes a frame of the master's whose descriptors did not arrive: this process has
// no room for them. Who waits for them hears of it.
func (c *child) handlesLost(conn *fdipc.Conn, f *fdipc.Frame) {
	if f.Kind == frameHello {
		c.log.Error("out of descriptors: what the master's welcome brings is lost")
		c.receiveHello(f)
		return
	}
	<-c.equipped
	switch {
	case c.system == nil: // unfit
	case f.Kind == frameLink:
		if to, err := decode[sibling](f); err == nil {
			c.reportNoLink(to, os.NewSyscallError("recvmsg", syscall.EMFILE))
		}
	case c.system.HandlesLost(masterAddress, f):
	case c.netListeners != nil:
		c.netListeners.HandlesLost(conn, f)
	default:
		c.dispatcher.HandlesLost(conn, f)
	}
}

// handle takes a frame of the master's, on the channel's reader.
func (c *child) handle(conn *fdipc.Conn, f *fdipc.Frame) {
	if f.Kind == frameHello {
		c.receiveHello(f)
		return
	}
	<-c.equipped // the master may speak on before run has read the hello
	var err error
	switch {
	case c.system == nil: // unfit: nothing is for this child
		f.Refuse(fdipc.ReasonClosed)
	case f.Kind == frameStop:
		var s stopRequest
		if s, err = decode[stopRequest](f); err == nil {
			c.beginDrain(errStopRequested, s.Drain, s.Idle)
		}
	case f.Kind == frameLink:
		err = c.link(f)
	case f.Kind == frameWorkerGone:
		err = c.workerGone(f)
	case f.Kind == frameStopAccepting:
		c.stopAccepting()
	case f.Kind == frameAssign:
		var a assignFrame
		if a, err = decode[assignFrame](f); err == nil {
			c.assign(a)
		}
	case f.Kind == frameHeartbeat:
		var b heartbeatFrame
		if b, err = decode[heartbeatFrame](f); err == nil {
			c.answerHeartbeat(b)
		}
	case f.Kind == frameStacks:
		var s stacksFrame
		if s, err = decode[stacksFrame](f); err == nil {
			go c.sendStacks(s.N) // bounded
		}
	case c.system.HandleFrame(masterAddress, f):
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
	return unsealed(f, n)
}

func (c *child) receiveHello(f *fdipc.Frame) {
	w, err := decode[hello](f)
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
	if err != nil && !channelOver(err) {
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
		_ = c.conn.TrySend(control(frameForcedConns, exitNotice{Forced: n})) // a master that is gone counts nothing
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
func (c *child) run(conn *fdipc.Conn, newPipeline func(hello) tracing.Pipeline) exitNotice {
	c.conn = conn
	c.channelStats.add(conn)
	select {
	case g := <-c.hello:
		if g.err != nil {
			close(c.equipped)
			return exitNotice{Kind: noticeError, Text: g.err.Error()}
		}
		c.identity, c.spanTable = g.hello, g.spanTable
	case <-c.ctx.Done():
		close(c.equipped)
		return exitNotice{Kind: noticeUnfit, Text: context.Cause(c.ctx).Error()}
	case <-time.After(helloTimeout):
		close(c.equipped)
		return exitNotice{Kind: noticeUnfit, Text: fmt.Sprintf("coppice: no welcome from the master within %v", helloTimeout)}
	}
	life, err := c.checkHello()
	if err == nil {
		c.pipeline = newPipeline(c.identity)
		err = c.equip()
	}
	close(c.equipped)
	if err != nil {
		return exitNotice{Kind: noticeUnfit, Text: err.Error()}
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
func (c *child) checkHello() (life func() exitNotice, err error) {
	w := c.identity
	if w.Protocol != protocol {
		return nil, fmt.Errorf("coppice: the master speaks protocol %d, this program %d", w.Protocol, protocol)
	}
	switch w.Role {
	case roleListener:
		return c.dispatchConnections, nil
	case roleWorker:
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
	if err := system.Attach(masterAddress, 0, c.conn); err != nil {
		return err
	}
	system.Uplink(masterAddress)
	tracer := tracing.New(c.pipeline.TracerProvider()).WithMeter(c.pipeline.Meter())
	switch c.identity.Role {
	case roleListener:
		c.dispatcher = netactor.NewDispatcher(netactor.DispatcherConfig{Logger: c.log, Tracer: tracer, Functions: c.root.functions})
	case roleWorker:
		c.netListeners = netactor.NewListeners(netactor.ListenersConfig{
			Logger: c.log, Tracer: tracer, Master: c.conn, Pool: c.identity.Path, Stopping: c.ctx.Done(),
		})
	}
	c.system = system
	if c.process {
		registerMetrics(c.pipeline.Meter(), &c.channelStats, system)
	}
	return nil
}

// work runs the worker function to its end.
func (c *child) work() exitNotice {
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
	bye := exitNotice{Kind: noticeNormal, Forced: int(c.forced.Load())}
	switch {
	case asked && (err == nil || errors.Is(err, context.Canceled)):
		bye.Kind = noticeShutdown
	case err != nil:
		bye.Kind, bye.Text = noticeError, err.Error()
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
	if err := c.conn.Send(c.ctx, control(frameReady, struct{}{})); err != nil {
		return fmt.Errorf("coppice: ready: %w", err)
	}
	return nil
}

// sendExitNotice says goodbye and closes the channel.
func (c *child) sendExitNotice(bye exitNotice) {
	ctx, cancel := context.WithTimeout(context.Background(), partingTimeout)
	defer cancel()
	_ = c.conn.Send(ctx, control(frameExitNotice, bye.cut())) // when it fails there is nobody to tell
	c.exiting.Store(true)
	_ = c.conn.Close()
	c.closeLinks()
	c.endDrain()
}
