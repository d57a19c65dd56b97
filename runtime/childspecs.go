package coppice

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// defaultStartTimeout is that of a pool, and of the listener process.
const defaultStartTimeout = 30 * time.Second

// errForkTimeout is the cause of the end of a fork that has taken the whole StartTimeout.
var errForkTimeout = fmt.Errorf("%w: %w", ErrNotReady, supervisor.ErrStartTimeout)

// poolIntensity suits what is killed from outside and grows back in
// milliseconds; OTP's 1 in 5 s is for one process's actors.
var poolIntensity = supervisor.Intensity{Max: 10, Period: 10 * time.Second}

// poolBackoff holds starts that fail, and crashes over the budget, so far apart that a
// machine can bear them, and no further than a client in the backlog can wait.
var poolBackoff = supervisor.Backoff{Initial: 50 * time.Millisecond, Max: time.Second, AtOnce: true}

// listenerShutdown bounds the stop of the listener process, which has nothing
// under way by then.
const listenerShutdown = 2 * time.Second

// listenerIntensity is the listener process's own budget. It counts in nobody
// else's.
var listenerIntensity = supervisor.Intensity{Max: 100, Period: 10 * time.Second}

// childSpecs turns the branch at nodes into what the supervisor package takes.
func (rt *Runtime) childSpecs(nodes []*node) []supervisor.ChildSpec {
	specs := make([]supervisor.ChildSpec, 0, len(nodes))
	for _, n := range nodes {
		specs = append(specs, rt.childSpec(n))
	}
	return specs
}

func (rt *Runtime) childSpec(n *node) supervisor.ChildSpec {
	switch s := n.spec.(type) {
	case Pool:
		return rt.poolSpec(n, s)
	case Func:
		return supervisor.ChildSpec{ID: s.Name, Start: supervisor.Func(s.Run), Restart: s.Restart, Shutdown: s.Shutdown}
	case Actor:
		return supervisor.ChildSpec{ID: s.Name, Start: actors.ChildSpec(rt.system, actors.Spec{Name: n.path, New: s.New, Bound: s.Bound}), Restart: s.Restart, Shutdown: s.Shutdown}
	case Process:
		return supervisor.ChildSpec{ID: s.Name, Start: programStarter{rt.backends.spawner, rt.shortages, rt.crashes, s, n.path}, Restart: s.Restart, Shutdown: s.Shutdown}
	case ListenerSpec:
		return supervisor.ChildSpec{ID: s.Name, Start: listenerStarter{rt.sockets, rt.log, s, n.path}}
	case Supervisor:
		return supervisor.ChildSpec{ID: s.Name, Restart: s.Restart, Start: supervisor.Spec{
			Strategy: s.Strategy, Intensity: s.Intensity, Children: rt.childSpecs(n.children),
		}}
	}
	panic(fmt.Sprintf("coppice: %T is not a child spec", n.spec)) // the interface is sealed
}

// poolSpec is a supervisor over the pool's slots.
func (rt *Runtime) poolSpec(n *node, p Pool) supervisor.ChildSpec {
	return supervisor.ChildSpec{
		ID: p.Name, Type: supervisor.TypeSupervisor,
		Start: &poolStarter{parts: rt.poolParts(), path: n.path, role: childproto.RoleWorker, pool: p.complete()},
	}
}

// backends starts what children consist of.
type backends struct {
	spawner
	pipeline tracing.Pipeline
	tree     []string // for the children to compare with theirs

	// Of goroutines, which live by the same as a process.
	cfg  Config
	root *node
}

// startChild starts the child w of a generation: it has its backend, its channel and its place
// in the registry when startChild returns. It lives from then on, and is the caller's to bring
// up, and to end. What it takes for that is taken here, where it may be short.
func (c *poolDriver) startChild(ctx context.Context, w childproto.Hello, gen *generation) (*childHandle, error) {
	w.Protocol, w.Tree = childproto.Version, c.backends.tree
	p := newChildHandle(c, w)
	inProcess := c.pool.Isolation == ProcessIsolation
	if inProcess && len(w.Config) > inlineConfig {
		var err error
		if p.config, err = gen.handle(); err != nil {
			return nil, startError(w.Name, err)
		}
	}
	c.children.assignID(p)
	about := p.hello.Process()
	about.Shared = !inProcess
	p.telemetry = c.backends.pipeline.Adopt(about)
	if !inProcess {
		c.backends.startGoroutine(p)
	} else if err := c.backends.fork(ctx, p, gen.exe); err != nil {
		p.telemetry.Ended(tracing.End{At: time.Now()})
		if p.config != nil {
			_ = p.config.Close() // a file in memory
		}
		return nil, err
	}
	c.children.add(p)
	go p.awaitEnd() // ends with the child
	return p, nil
}

// awaitReady tells a child that hatched who it is, and waits until it is ready; a spare,
// until it is warm. On an error the child is as far as it came. To be called once.
func (p *childHandle) awaitReady(ctx context.Context) error {
	// The hello comes first: whoever knows the child may send it something.
	err := errors.Join(p.sendHello(ctx), p.driver.children.attach(p))
	close(p.attached)
	if err != nil {
		return p.notReadyError(err)
	}
	if p.hello.Slot == pool.Spare {
		return p.await(ctx, p.standby)
	}
	return p.linkAndName(ctx)
}

// assignSlot gives a spare that is warm its place, and waits until it is ready.
func (p *childHandle) assignSlot(ctx context.Context, a childproto.AssignFrame) error {
	at := assignment{name: a.Name, slot: a.Slot, incarnation: a.Incarnation}
	p.assigned.Store(&at)
	p.driver.children.sockets.AddWorker(p.sibling().Worker, p.conn) // it may ask for one from now on
	if err := p.conn.Send(ctx, childproto.NewFrame(childproto.FrameAssign, a)); err != nil {
		return p.notReadyError(err)
	}
	return p.linkAndName(ctx)
}

// linkAndName gives a child that knows its place a link, waits until it is ready, and gives
// it its name.
func (p *childHandle) linkAndName(ctx context.Context) error {
	if p.hello.Role == childproto.RoleWorker {
		if err := p.await(ctx, p.handshaken); err != nil {
			return err
		}
		if err := p.driver.children.linkWorker(ctx, p); err != nil {
			return p.notReadyError(err)
		}
	}
	if err := p.await(ctx, p.ready); err != nil {
		return err
	}
	_ = p.driver.children.registerName(p) // it may have ended by now; it was ready nevertheless
	return nil
}

// await waits until the child has said what closes said, or has ended without that: its
// last word is heard before its end is known.
func (p *childHandle) await(ctx context.Context, said <-chan struct{}) error {
	select {
	case <-said:
		return nil
	case <-p.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-said:
		return nil
	default:
		return p.notReadyError(nil)
	}
}

// startGoroutine starts p as a goroutine.
func (b *backends) startGoroutine(p *childHandle) {
	c := newChild(b.cfg, b.root)
	c.config = p.hello.Config
	mine, its := fdipc.Pipe(p.transport(), c.transport())
	p.conn = mine
	p.backend = startGoroutineChild(c, its, b.pipeline)
}

// programStarter starts another program.
type programStarter struct {
	spawner
	shortages *shortages
	crashes   *crashQueue // nil: nobody wants to know
	spec      Process
	path      string
}

func (f programStarter) Start(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
	return f.start(ctx, int(inc.N))
}
