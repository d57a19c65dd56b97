package coppice

import (
	"cmp"
	"context"
	"fmt"
	"net"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/telemetry"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// childSpecs converts nodes to the specs of package supervisor. up is closed when they have all
// started for the first time.
func (rt *Runtime) childSpecs(nodes []*node, up <-chan struct{}) []supervisor.ChildSpec {
	specs := make([]supervisor.ChildSpec, 0, len(nodes))
	for _, n := range nodes {
		specs = append(specs, rt.childSpec(n, up))
	}
	return specs
}

// childSpec converts a node. A child that did not run in the image of the master before this one is
// not started by its supervisor.
func (rt *Runtime) childSpec(n *node, up <-chan struct{}) supervisor.ChildSpec {
	spec := rt.specOf(n, up)
	if rt.inherited != nil {
		start := spec.Start
		spec.Start = supervisor.StarterFunc(func(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
			if err := rt.inherited.idle(n.path); err != nil {
				return nil, err
			}
			i, err := start.Start(ctx, inc)
			if err == nil && rt.inherited.onProbation(n) {
				i = rt.inherited.watch(n.path, spec.Restart, i)
			}
			return i, err
		})
	}
	return spec
}

func (rt *Runtime) specOf(n *node, up <-chan struct{}) supervisor.ChildSpec {
	switch s := n.spec.(type) {
	case Pool:
		kind := workerPool
		switch {
		case s.ofHost && s.Name == childproto.GatewayName:
			kind = gatewayPool
		case s.Command != nil:
			kind = programPool
		}
		return rt.poolSpec(n.path, kind, s, up)
	case Func:
		return supervisor.ChildSpec{ID: s.Name, Start: supervisor.Func(rt.funcStates.run(n.path, s.Run)), Restart: s.Restart, Shutdown: s.Shutdown}
	case Actor:
		actor := actors.ChildSpec(rt.system, actors.Spec{Name: n.path, New: telemetry.Measuring(rt.pipeline.Meter(), s.New), Bound: s.Bound})
		start := func(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
			defer warnIfSlow(rt.log, unlimited, "the start of "+n.path, "its New or its Receive of *actor.Started has not returned", "hint", "what starts after it waits: let a goroutine do what lasts")()
			return actor.Start(ctx, inc)
		}
		return supervisor.ChildSpec{ID: s.Name, Start: supervisor.StarterFunc(start), Restart: s.Restart, Shutdown: s.Shutdown}
	case Process:
		return supervisor.ChildSpec{ID: s.Name, Start: n.keeping(programStarter{rt.backends.spawner, rt.shortages, rt.crashes, rt.generations.environ, &rt.stops, s, n.path, rt.inherited, rt.sockets}), Restart: s.Restart, Shutdown: s.Shutdown}
	case ListenerSpec:
		return supervisor.ChildSpec{ID: s.Name, Start: listenerStarter{rt.sockets, rt.log, s, n.path}}
	case Supervisor:
		return supervisor.ChildSpec{ID: s.Name, Type: supervisor.TypeSupervisor, Restart: s.Restart, Start: n.keeping(supervisor.Spec{
			Strategy: s.Strategy, Intensity: s.Intensity, Children: rt.childSpecs(n.declared, up),
		})}
	}
	panic(fmt.Sprintf("coppice: %T is not a child spec", n.spec)) // the interface is sealed
}

// poolSpec returns the spec of a pool: a supervisor over its slots.
func (rt *Runtime) poolSpec(path string, kind *poolKind, p Pool, up <-chan struct{}) supervisor.ChildSpec {
	return supervisor.ChildSpec{
		ID: p.Name, Type: supervisor.TypeSupervisor,
		Start: &poolStarter{pools: rt.pools, path: path, kind: kind, pool: p.complete(), parts: poolParts{
			log: rt.log, tree: rt.tree, departures: &rt.departures, sizes: &rt.sizes, generations: &rt.generations, children: rt.children, shortages: rt.shortages,
			backends: rt.backends, lifecycle: rt.lifecycle, crashes: rt.crashes, ending: rt.ending, reload: rt.reload, orders: &rt.orders, stopListening: rt.stopListening, orphanDrain: rt.cfg.OrphanDrain, stops: &rt.stops, entry: cmp.Or(rt.cfg.entry, "Start"),
			declarations: rt.declarations, misfits: rt.misfits, up: func() bool { return childproto.IsClosed(up) },
		}},
	}
}

// ownSpecs returns the tree's own part: the listener process under a separate supervisor. It starts
// before n, which may need it.
func (rt *Runtime) ownSpecs(n *node) []supervisor.ChildSpec {
	if !n.listens() {
		return nil
	}
	return []supervisor.ChildSpec{rt.poolSpec(childproto.ListenersName, listenerPool, Pool{
		Name: childproto.ListenersName, Size: 1, Isolation: rt.cfg.ListenerIsolation, Intensity: listenerIntensity, Shutdown: listenerShutdown,
	}, rt.up)}
}

// gatewayProcess is a worker as a gateway.
type gatewayProcess struct{ *Worker }

func (g gatewayProcess) Incarnation() uint64 { return uint64(g.ID()) }

func (g gatewayProcess) Meter() *tracing.Meter { return g.c.Meter() }

func (g gatewayProcess) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	return g.ListenSpec(ctx, ListenerSpec{Network: network, Address: address, Policy: netactor.Shared})
}

// hostPools returns the pools that a tree in a cluster has before its own children. That of the
// gateway is the first.
func hostPools(c Cluster, isolation Isolation) []ChildSpec {
	gateway := Pool{
		Name: childproto.GatewayName, Size: 1, Isolation: isolation, Intensity: listenerIntensity, Shutdown: listenerShutdown, ofHost: true,
		Worker: func(ctx context.Context, w *Worker) error { return c.RunGateway(ctx, gatewayProcess{w}) },
	}
	run := c.Member()
	if run == nil {
		return []ChildSpec{gateway}
	}
	return []ChildSpec{gateway, Pool{
		Name: childproto.MemberName, Size: 1, Intensity: memberIntensity, Shutdown: memberShutdown, ofHost: true,
		Worker: func(ctx context.Context, w *Worker) error {
			if err := w.Ready(); err != nil { // the others do not wait for an engine
				return err
			}
			return run(ctx)
		},
	}}
}

// hostOf returns the name of the host in a cluster; "" if there is none.
func hostOf(c Cluster) string {
	if c == nil {
		return ""
	}
	return c.HostName()
}
