package coppice

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// defaultStartTimeout is that of a pool, and of the listener process.
const defaultStartTimeout = 30 * time.Second

// errNotForked is the cause of the end of a fork that has taken the whole StartTimeout.
var errNotForked = fmt.Errorf("%w: %w", ErrNotReady, supervisor.ErrStartTimeout)

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
		return supervisor.ChildSpec{ID: s.Name, Start: foreign{rt, s, n.path}, Restart: s.Restart, Shutdown: s.Shutdown}
	case Listener:
		return supervisor.ChildSpec{ID: s.Name, Start: held{rt, s, n.path}}
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
		Start: &grove{rt: rt, path: n.path, role: roleWorker, pool: p.complete()},
	}
}

// hatch starts the child w of a generation: it has its body, its channel and its place
// in the book when hatch returns. It lives from then on, and is the caller's to bring
// up, and to end. What it takes for that is taken here, where it may be short.
func (rt *Runtime) hatch(ctx context.Context, w welcome, isolation Isolation, gen *generation) (*peer, error) {
	w.Protocol, w.Tree = protocol, rt.described
	p := newPeer(rt, w)
	if isolation == ProcessIsolation && len(w.Config) > inlineConfig {
		var err error
		if p.config, err = gen.handle(); err != nil {
			return nil, starting(w.Name, err)
		}
	}
	rt.hub.number(p)
	about := p.welcome.process()
	about.Shared = isolation == GoroutineIsolation
	p.telemetry = rt.pipeline.Adopt(about)
	if isolation == GoroutineIsolation {
		rt.branchOff(p)
	} else if err := rt.fork(ctx, p, gen.exe); err != nil {
		p.telemetry.Ended(tracing.End{At: time.Now()})
		if p.config != nil {
			_ = p.config.Close() // a file in memory
		}
		return nil, err
	}
	rt.hub.book(p)
	go p.live() // ends with the child
	return p, nil
}

// bringUp tells a child that hatched who it is, and waits until it is ready; a spare,
// until it is warm. On an error the child is as far as it came. To be called once.
func (rt *Runtime) bringUp(ctx context.Context, p *peer) error {
	// The welcome comes first: whoever knows the child may send it something.
	err := errors.Join(p.sayWelcome(ctx), rt.hub.enter(p))
	close(p.entered)
	if err != nil {
		return p.beforeReady(err)
	}
	if p.welcome.Slot == pool.Spare {
		return p.await(ctx, p.warm)
	}
	return rt.settle(ctx, p)
}

// appoint gives a spare that is warm its place, and waits until it is ready.
func (rt *Runtime) appoint(ctx context.Context, p *peer, a appointment) error {
	at := place{name: a.Name, slot: a.Slot, incarnation: a.Incarnation}
	p.place.Store(&at)
	rt.sockets.AddWorker(p.sibling().Worker, p.conn) // it may ask for one from now on
	if err := p.conn.Send(ctx, control(frameAppoint, a)); err != nil {
		return p.beforeReady(err)
	}
	return rt.settle(ctx, p)
}

// settle gives a child that knows its place a link, waits until it is ready, and gives
// it its name.
func (rt *Runtime) settle(ctx context.Context, p *peer) error {
	if p.welcome.Role == roleWorker {
		if err := p.await(ctx, p.met); err != nil {
			return err
		}
		if err := rt.hub.welcomed(ctx, p); err != nil {
			return p.beforeReady(err)
		}
	}
	if err := p.await(ctx, p.ready); err != nil {
		return err
	}
	_ = rt.hub.rename(p) // it may have ended by now; it was ready nevertheless
	return nil
}

// await waits until the child has said what closes said, or has ended without that: its
// last word is heard before its end is known.
func (p *peer) await(ctx context.Context, said <-chan struct{}) error {
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
		return p.beforeReady(nil)
	}
}

// branchOff starts p as a goroutine.
func (rt *Runtime) branchOff(p *peer) {
	c := newChild(rt.cfg, rt.root)
	c.config = p.welcome.Config
	mine, its := fdipc.Pipe(p.transport(), c.transport())
	p.conn = mine
	p.body = goChild(c, its, rt.pipeline)
}

// foreign starts another program.
type foreign struct {
	rt   *Runtime
	spec Process
	path string
}

func (f foreign) Start(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
	return f.rt.startForeign(ctx, f.spec, f.path, int(inc.N))
}
