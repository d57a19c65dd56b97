package coppice

import (
	"context"
	"log/slog"
	"sync"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// poolStarter starts a pool: its driver, and its supervisor with a child for each slot.
type poolStarter struct {
	pools *pools
	parts poolParts
	path  string
	kind  *poolKind
	pool  Pool // complete
}

func (g *poolStarter) Start(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
	g.parts.departures.end(g.path)
	c := newPoolDriver(g.parts, g.kind, g.path, g.pool)
	c.children.setGuard(g.path, c.guard)
	spec := supervisor.Spec{
		Strategy: g.pool.Strategy, Intensity: g.pool.Intensity, Backoff: g.pool.Backoff,
		StopTogether: !g.pool.StopInOrder && !g.pool.OTP, StartTogether: g.pool.startTogether(), Persist: g.pool.persists(),
	}
	endGuard := c.showGuard(ctx)
	g.pools.add(c)
	var before <-chan struct{}
	for _, slot := range c.firstSlots() {
		launched := make(chan struct{})
		child := c.slotSpec(slot)
		child.Start = slotStarter{c, slot, before, sync.OnceFunc(func() { close(launched) })}
		spec.Children = append(spec.Children, child)
		before = launched
	}
	inst, err := spec.Start(ctx, inc)
	if err != nil {
		c.step(pool.Event{Kind: pool.Stop})
		<-c.gone
		endGuard()
		g.pools.remove(c)
		c.depart(slog.LevelDebug) // the supervisor logs why
		return nil, err
	}
	p := &poolInstance{pools: g.pools, driver: c, stopped: g.parts.stops.add(g.path, c.stopsIn()), sup: inst.(*supervisor.Supervisor), endGuard: endGuard, done: make(chan struct{})}
	c.setSupervisor(p.sup)
	if g.pool.Autoscale.Max > 0 {
		c.scaler.Go(c.autoscale) // ends with the pool
	}
	go p.awaitEnd() // ends with the pool
	return p, nil
}

// showGuard shows the pool's quarantine to operators, as an actor, until end is called.
func (c *poolDriver) showGuard(ctx context.Context) (end func()) {
	if c.guard == nil {
		return func() {}
	}
	forget := func() {
		c.children.setGuard(c.path, nil)
		c.guard.end()
	}
	system := c.children.system
	pid, err := system.Spawn(ctx, c.path+"/"+guardKind, func() actor.Actor { return c.guard })
	if err != nil {
		c.log.Warn("the quarantine of a pool's requests cannot be shown", "pool", c.path, "err", err)
		return forget
	}
	return func() {
		forget()
		_ = system.Stop(context.Background(), pid) // it has nothing to do
	}
}

// poolInstance is a running pool. It has ended when its supervisor and every worker have ended,
// including workers that drain without a slot.
type poolInstance struct {
	supervisor.Base
	pools         *pools
	driver        *poolDriver
	sup           *supervisor.Supervisor
	endGuard      func()
	done          chan struct{}
	once          sync.Once
	stopped       func() // tells the stop plan that it has ended
	stopRequested bool   // set in once, read after sup has ended
}

func (p *poolInstance) awaitEnd() {
	<-p.sup.Done()
	p.driver.step(pool.Event{Kind: pool.Stop})
	<-p.driver.gone
	p.driver.scaler.Wait()
	p.endGuard()
	p.stopped()
	p.pools.remove(p.driver)
	p.once.Do(func() {}) // a later Stop has no effect
	if p.stopRequested {
		p.driver.children.sockets.StopOwner(p.driver.path)
	}
	level := slog.LevelWarn
	if p.stopRequested {
		level = slog.LevelInfo
	}
	p.driver.depart(level)
	close(p.done)
}

// depart closes the sockets of a pool that has ended, if it turns out not to be started again, and
// logs that at a level.
func (c *poolDriver) depart(level slog.Level) {
	if !c.kind.ofConfig {
		return
	}
	c.departures.begin(c.tree, c.path, func() {
		if refusing := c.children.sockets.Gone(c.path); !c.ending() {
			c.log.Log(context.Background(), level, "the pool is not started again: its sockets are closed", "pool", c.path, "listeners that refuse clients", refusing)
		}
	})
}

// Stop stops the pool and closes its sockets. A pool that ends without Stop has given up. Its
// sockets then stay open until it is known whether it is started again; see depart. Meanwhile
// clients wait in the backlog.
//
// If the tree ends by itself, Stop first closes the sockets of the whole tree, as Runtime.Shutdown
// does: while some pools drain, no client waits for the others.
func (p *poolInstance) Stop() {
	p.once.Do(func() { p.stopRequested = true })
	stop := func() {
		p.driver.setStopTime()
		p.driver.step(pool.Event{Kind: pool.Stop})
		p.sup.Stop()
	}
	if !p.driver.kind.ofConfig || !p.driver.ending() {
		stop()
		return
	}
	go func() { // ends within stopAcceptingTimeout
		p.driver.stopListening(context.Background())
		stop()
	}()
}

// Kill ends the pool and kills its workers.
func (p *poolInstance) Kill() {
	p.once.Do(func() { p.stopRequested = true })
	p.sup.Kill()
	p.driver.step(pool.Event{Kind: pool.Stop})
	p.driver.step(pool.Event{Kind: pool.KillAll})
}

func (p *poolInstance) Done() <-chan struct{}     { return p.done }
func (p *poolInstance) Reason() supervisor.Reason { return p.sup.Reason() }

// Snapshot returns the pool with the present worker of each slot and, after the slots, the workers
// without a slot.
func (p *poolInstance) Snapshot() supervisor.Node {
	n := p.sup.Snapshot()
	p.driver.showOccupants(n.Children)
	n.Children = append(n.Children, p.driver.unslotted()...)
	return n
}

// Turn waits for the pool's driver, and for its supervisor, which the driver tells its news.
func (p *poolInstance) Turn(ctx context.Context) error {
	if err := p.driver.Turn(ctx); err != nil {
		return err
	}
	return p.sup.Turn(ctx)
}
