package coppice

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// Defaults of a pool.
const (
	defaultStartTimeout = 30 * time.Second
	defaultPoolShutdown = 10 * time.Second
)

// poolIntensity suits what is killed from outside and grows back in
// milliseconds; OTP's 1 in 5 s is for one process's actors.
var poolIntensity = supervisor.Intensity{Max: 10, Period: 10 * time.Second}

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
		return supervisor.ChildSpec{ID: s.Name, Start: actors.Child(rt.system, n.path, s.New), Restart: s.Restart, Shutdown: s.Shutdown}
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
	p.Size = p.size()
	if p.Intensity == (supervisor.Intensity{}) {
		p.Intensity = poolIntensity
	}
	if p.StartTimeout == 0 {
		p.StartTimeout = defaultStartTimeout
	}
	if p.Shutdown == 0 {
		p.Shutdown = defaultPoolShutdown
	}
	spec := supervisor.Spec{Strategy: p.Strategy, Intensity: p.Intensity, Backoff: p.Backoff}
	for i := range p.Size {
		spec.Children = append(spec.Children, supervisor.ChildSpec{
			ID: strconv.Itoa(i), Start: slot{rt, n.path, p, i},
			Restart: p.Restart, Shutdown: p.Shutdown, StartTimeout: p.StartTimeout,
		})
	}
	return supervisor.ChildSpec{ID: p.Name, Start: grove{rt, n.path, spec}, Type: supervisor.TypeSupervisor}
}

// grove starts the supervisor of a pool, whose sockets end with it.
type grove struct {
	rt   *Runtime
	path string
	spec supervisor.Spec
}

func (g grove) Start(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
	inst, err := g.spec.Start(ctx, inc)
	if err != nil {
		g.rt.sockets.StopOwner(g.path)
		return nil, err
	}
	return &poolInstance{inst.(*supervisor.Supervisor), g}, nil
}

// poolInstance is a running pool.
type poolInstance struct {
	*supervisor.Supervisor
	grove grove
}

// Stop stops the pool, and with it its sockets. A pool that ends by itself has
// given up: whether its sockets are of use to another incarnation, or end with
// the tree, is decided above it, and until then clients wait in the backlog.
func (p *poolInstance) Stop() {
	p.Supervisor.Stop()
	go func() { // ends with the pool
		<-p.Done()
		p.grove.rt.sockets.StopOwner(p.grove.path)
	}()
}

// slot starts the workers of one place in a pool, one after another.
type slot struct {
	rt     *Runtime
	path   string // of the pool
	pool   Pool
	number int
}

func (s slot) Start(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
	return s.rt.startChild(ctx, welcome{
		Role: roleWorker, Path: s.path, Name: fmt.Sprintf("%s/%d", s.path, s.number),
		Slot: s.number, Generation: 1, Incarnation: int(inc.N), Config: s.rt.config,
		Drain: s.pool.Shutdown * 9 / 10,
	}, s.pool.Isolation)
}

// listenerStarter starts the listener process.
type listenerStarter struct{ rt *Runtime }

func (l listenerStarter) Start(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
	return l.rt.startChild(ctx, welcome{
		Role: roleListener, Name: listenerName, Generation: 1, Incarnation: int(inc.N),
		Drain: listenerShutdown * 9 / 10,
	}, l.rt.cfg.ListenerIsolation)
}

// startChild starts the child w and returns when it is ready.
func (rt *Runtime) startChild(ctx context.Context, w welcome, isolation Isolation) (supervisor.Instance, error) {
	w.Protocol, w.Tree = protocol, rt.described
	p := newPeer(rt, w)
	rt.hub.number(p)
	about := p.welcome.process()
	about.Shared = isolation == GoroutineIsolation
	p.telemetry = rt.pipeline.Adopt(about)
	if isolation == GoroutineIsolation {
		rt.branchOff(p)
	} else if err := rt.fork(p); err != nil {
		p.telemetry.Ended(tracing.End{At: time.Now()})
		return nil, err
	}
	err := rt.hub.enter(p)
	go p.live() // ends with the child; after enter, which what it does at the end undoes
	if err == nil {
		err = rt.bringUp(ctx, p)
	}
	if err == nil {
		return p, nil
	}
	why := KilledUnwanted
	if errors.Is(context.Cause(ctx), supervisor.ErrStartTimeout) {
		why = KilledNotReady
	}
	p.killFor(why)
	<-p.done
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%w: %s: %w; %w", ErrNotReady, w.Name, context.Cause(ctx), supervisor.Exit(p.reason))
	}
	return nil, err
}

// bringUp tells a child that has a channel who it is, and waits until it is ready.
// On an error the child is as far as it came.
func (rt *Runtime) bringUp(ctx context.Context, p *peer) error {
	if err := p.sayWelcome(ctx); err != nil {
		return p.beforeReady(err)
	}
	if err := rt.hub.welcomed(ctx, p); err != nil {
		return p.beforeReady(err)
	}
	select {
	case <-p.ready:
		return rt.hub.ready(ctx, p)
	case <-p.done:
		return p.beforeReady(nil)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// branchOff starts p as a goroutine.
func (rt *Runtime) branchOff(p *peer) {
	c := newChild(rt.cfg, rt.root)
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

// held opens the socket of a Listener in the tree.
type held struct {
	rt   *Runtime
	spec Listener
	path string
}

func (h held) Start(ctx context.Context, _ supervisor.Incarnation) (supervisor.Instance, error) {
	spec, err := h.spec.resolveSystemd()
	if err != nil {
		return nil, err
	}
	addr, err := h.rt.sockets.Open(ctx, h.path, spec.request())
	if err != nil {
		return nil, err
	}
	h.rt.log.Info("listening", "listener", h.spec.Name, "addr", addr.String())
	return &holding{held: h, done: make(chan struct{})}, nil
}

// holding is an open socket in the tree. It ends only when it is stopped.
type holding struct {
	held
	once sync.Once
	done chan struct{}
}

func (h *holding) Stop() {
	h.once.Do(func() {
		h.rt.sockets.StopOwner(h.path)
		close(h.done)
	})
}

func (h *holding) Kill()                     { h.Stop() }
func (h *holding) Done() <-chan struct{}     { return h.done }
func (h *holding) Reason() supervisor.Reason { return supervisor.Reason{Kind: supervisor.Shutdown} }
