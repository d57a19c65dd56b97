package coppice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/declaration"
	"github.com/coppice-go/coppice/runtime/internal/started"
	"github.com/coppice-go/coppice/runtime/internal/telemetry"
	"github.com/coppice-go/coppice/tracing"
)

// Reload replaces every worker by a worker of a new generation. The new workers run the executable
// that is now at the path by which this program was started, in the directory to which the name of
// the one in which it was started leads now, symbolic links included, with the configuration that
// Config.Load returns now. The reload goes pool by pool and slot by slot; each new worker is ready
// before the old worker is asked to drain, as Pool.Rollout says. The listener process comes last.
// What runs in the master stays as it is: Funcs, Actors, Listeners, and programs that are not this
// one.
//
// A reload brings new code to the tree as it is. Of the values that the new program has in its
// specs, Pool.Size is taken over if the release changed it; a size that [Runtime.Scale] or a signal
// has set stays otherwise. Other values, and children more or fewer, are the tree's until the
// program is restarted, and the log has a warning for each difference. If the new program lacks a
// Pool that the tree has, or a function that a listener needs, the reload fails before a worker is
// replaced. What counts as changed is what the workers of the new program make of their specs
// against what those of the one before made of theirs: values that main computes (from GOMAXPROCS,
// the time, the name of the host) may differ from the master's, whose values count.
//
// Reload returns when the last slot has its new worker; the old workers may still drain. The first
// worker that fails ends the reload. A worker fails if it ends before it is ready, is not ready
// within StartTimeout, or ends without being asked before the reload is over. Slots whose turn had
// not come are not affected. Slots that had been replaced get a worker of the old generation again,
// with the old executable, which is still held open, and the old configuration. A slot that cannot
// go back keeps its new worker until one of the old generation is ready, which is tried again and
// again. Reload then returns a [ReloadError].
//
// If a pool gives up during the reload because of old workers, the reload goes on. The restarted
// pool is reloaded too, or starts with the new generation if the reload is over by then. If no
// other pool has shown that the generation works, Reload waits for the restarted pool, for at most
// the pool's StartTimeout.
//
// A pool with a [Canary] tries the new generation in some slots first, and Reload waits for its
// verdict. With Canary.Watch the tree goes back by itself later, by another reload.
//
// The end of ctx ends the reload in the same way. A reload waits for another that is under way.
// When the tree is about to end, the error wraps [ErrStopping].
func (rt *Runtime) Reload(ctx context.Context) (err error) {
	held, err := rt.ReloadHeld(ctx)
	held.Keep()
	return err
}

// A HeldReload is a reload that can be taken back.
type HeldReload struct {
	Generation int // that it has brought

	rt     *Runtime
	before *generation // nil: it is kept, or was taken back
}

// ReloadHeld is Reload, and keeps the program and the configuration of before until the caller
// calls Keep or Back, each of which ends that. On an error there is nothing to keep.
func (rt *Runtime) ReloadHeld(ctx context.Context) (_ *HeldReload, err error) {
	select {
	case rt.reload <- struct{}{}:
		defer func() { <-rt.reload }()
	case <-ctx.Done():
		return nil, fmt.Errorf("coppice: reload: another one is under way: %w", ctx.Err())
	case <-rt.ended:
		return nil, fmt.Errorf("coppice: reload: %w", ErrStopping)
	}
	reloaded := rt.manager.Load().reloading()
	began, generation := time.Now(), 0 // until it has one
	defer func() {                     // also for a reload that does not begin: systemd waits for the end of it
		reloaded(err)
		rt.tellReloaded(began, generation, err)
	}()
	config, err := rt.cfg.load(ctx)
	if err != nil {
		return nil, err
	}
	program, err := started.Program()
	if err != nil {
		return nil, fmt.Errorf("coppice: reload: %w", err)
	}
	exe, err := executableAt(ctx, program)
	if err != nil {
		return nil, fmt.Errorf("coppice: reload: %w", err)
	}
	if rt.ending() {
		_ = exe.Close() // a file that was only read
		return nil, fmt.Errorf("coppice: reload: %w", ErrStopping)
	}
	rt.stopWatch()
	before := rt.generations.use(rt.generations.now())
	generation = rt.generations.prepare(exe, config).number
	if err := rt.reloadTo(ctx, generation, program, nil, true); err != nil {
		before.release()
		return nil, err
	}
	held := &HeldReload{generation, rt, before.hold()}
	rt.watchReload(before, generation)
	return held, nil
}

// Keep gives up what was before the reload.
func (h *HeldReload) Keep() {
	if h != nil && h.before != nil {
		h.before.release()
		h.before = nil
	}
}

// Back brings the program and the configuration of before to the workers again, by another reload,
// and returns its error. If another reload has come since, it is an error and changes nothing.
func (h *HeldReload) Back(ctx context.Context) error {
	if h.before == nil {
		return errors.New("coppice: go back: what was before is not kept")
	}
	defer h.Keep()
	return h.rt.goBack(ctx, h.before, h.Generation, errTakenBack)
}

var errTakenBack = errors.New("the reload is taken back")

// tellReloaded tells the end of a reload, after what led to it.
func (rt *Runtime) tellReloaded(began time.Time, generation int, err error) {
	rt.settle()
	rt.events.Put(Event{Time: time.Now(), Kind: TreeReloaded, Identity: Identity{Generation: generation}, Took: time.Since(began), Err: err, Fault: err != nil})
	rt.countReload(err)
	if err != nil {
		rt.log.Error("reload failed", "generation", generation, "took", time.Since(began), "err", err)
	}
}

// reloadTo brings the next generation, which runs program, to the workers, as a part of under,
// which may be nil. canaries is whether pools try it first, as their Canary says.
func (rt *Runtime) reloadTo(ctx context.Context, to int, program string, under *telemetry.Operation, canaries bool) (err error) {
	began, from := time.Now(), rt.generations.now()
	rt.events.Put(Event{Time: time.Now(), Kind: TreeReloading, Identity: Identity{Generation: to}})
	rt.log.Info("reloading", "generation", to, "program", program)
	op := rt.lifecycle.BeginOperation(tracing.SpanReload, "", under, tracing.KeyReloadFrom.Int(from), tracing.KeyReloadTo.Int(to))
	defer func() { op.End(err) }()
	err = rt.rollAll(ctx, from, to, canaries)
	if err == nil && rt.ending() { // there was no pool left to roll
		err = &ReloadError{Identity: Identity{Generation: to}, Err: ErrStopping}
	}
	rt.generations.finish(err == nil)
	if err != nil {
		rt.declarations.failed(to)
		return err
	}
	sizes := rt.declarations.reloaded(from, to)
	// A pool that started during the reload has the old generation.
	for _, c := range rt.behind(to, nil) {
		if late := c.roll(ctx, to, false, 0); !errors.Is(late, ErrStopping) {
			err = errors.Join(err, late)
		}
	}
	for _, c := range rt.pools.list() {
		if !c.pool.ofHost { // it has not been asked for its sockets anew
			rt.sockets.Sweep(c.path, to)
		}
	}
	for _, c := range sizes {
		err = errors.Join(err, rt.resize(ctx, c))
	}
	if err == nil {
		rt.log.Info("reloaded", "generation", to, "took", time.Since(began))
	}
	return err
}

// resize gives a pool the size that the new program declares.
func (rt *Runtime) resize(ctx context.Context, c declaration.Change) error {
	rt.declarations.apply(c)
	n := 0
	if c.To != "" {
		var err error
		if n, err = strconv.Atoi(c.To); err != nil || n < 1 || n > maxPool {
			return nil // the program would not have started
		}
	}
	size := Pool{Size: n}.size()
	d, err := rt.pools.find(c.Path)
	if err == nil && n == 0 {
		size = d.pool.Autoscale.clamp(size)
	}
	if err != nil { // it gave up: its next incarnation has the size
		rt.sizes.set(c.Path, size)
		return nil
	}
	if err := d.scale(ctx, func(int) int { return size }, ""); err != nil {
		return fmt.Errorf("coppice: reload: %s %d, as the new program declares: %w", c.Field, size, err)
	}
	rt.log.Info("reload: a pool has the size that the new program declares", "pool", c.Path, "size", size, "before", valueOf(c.From))
	return nil
}

// rollAll rolls every pool to generation to, or all back to from.
func (rt *Runtime) rollAll(ctx context.Context, from, to int, canaries bool) error {
	var rolled []*poolDriver
	var lost gaveUpPools
	for {
		enlisted := rt.pools.next()
		behind := rt.behind(to, rolled)
		var err error
		switch {
		case lost.unproved() && (len(behind) == 0 || !behind[0].kind.ofConfig):
			err = lost.await(ctx, enlisted, rt.ended, to)
		case len(behind) == 0:
			return nil
		default:
			c := behind[0]
			if canaries {
				err = c.rollOut(ctx, from, to)
			} else {
				err = c.roll(ctx, to, false, 0)
			}
			rolled = append(rolled, c)
			// A pool that ends during the reload does not fail it: the pool gave up because of old
			// workers, or its group is restarted. Its replacement still has the old generation.
			ended := errors.Is(err, ErrStopping) && !rt.ending()
			if ended {
				err = nil
			}
			switch {
			case !c.kind.ofConfig: // it shows only that the program starts
			case ended:
				lost.add(c)
			case err == nil:
				lost.proved = true
			}
		}
		if err != nil {
			return rt.rollBack(ctx, rolled, from, to, err)
		}
	}
}

// rollBack rolls back the pools that were rolled, also in part, and joins to err what fails.
func (rt *Runtime) rollBack(ctx context.Context, rolled []*poolDriver, from, to int, err error) error {
	for _, c := range slices.Backward(rolled) {
		if int(c.generation.Load()) != to {
			continue // it was not reached, or has gone back already
		}
		if back := c.roll(context.WithoutCancel(ctx), from, true, 0); back != nil && !errors.Is(back, ErrStopping) {
			err = errors.Join(err, back)
		}
	}
	for _, c := range rolled {
		rt.sockets.Unroll(c.path, to)
	}
	return err
}

// gaveUpPools is what a reload knows of pools that ended while they were rolled.
type gaveUpPools struct {
	path   string // of the latest; "" = there was none
	over   <-chan time.Time
	limit  time.Duration
	proved bool // some pool has shown that the generation works
}

// add notes that a pool has ended. The first call begins the wait, which has one deadline.
func (l *gaveUpPools) add(c *poolDriver) {
	l.path = c.path
	if l.over == nil {
		l.limit = c.pool.StartTimeout
		l.over = time.After(l.limit)
	}
}

// unproved reports whether a pool has ended and none has shown that the generation works.
func (l *gaveUpPools) unproved() bool { return l.path != "" && !l.proved }

// await waits until a pool starts, which may be the replacement of the one that ended.
func (l *gaveUpPools) await(ctx context.Context, enlisted, ended <-chan struct{}, to int) error {
	err := &ReloadError{Identity: Identity{Generation: to}}
	select {
	case <-enlisted:
		return nil
	case <-ctx.Done():
		err.Err = fmt.Errorf("%w, while pool %s, which gave up, was not started again", context.Cause(ctx), l.path)
	case <-ended:
		err.Err = ErrStopping
	case <-l.over:
		select {
		case <-enlisted:
			return nil
		default:
		}
		err.Err = fmt.Errorf("coppice: pool %s gave up before it had a new worker, and was not started again within %v", l.path, l.limit)
	}
	return err
}

// behind returns the drivers of the pools that do not have the generation, without those in but,
// and without the gateway, whose end cuts all lanes to other hosts, and the member.
func (rt *Runtime) behind(generation int, but []*poolDriver) []*poolDriver {
	return slices.DeleteFunc(rt.pools.list(), func(c *poolDriver) bool {
		return int(c.generation.Load()) == generation || c.pool.ofHost || slices.Contains(but, c)
	})
}
