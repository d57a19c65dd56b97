package coppice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/image"
	"github.com/coppice-go/coppice/runtime/internal/started"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

func init() { upgradeEnd.startLeft, upgradeEnd.confirm = (*Runtime).startLeft, (*Runtime).confirm }

// startLeft starts what the new program does not have any more, as it was, to stop it after the
// trial.
func (rt *Runtime) startLeft(ctx context.Context) error {
	in := rt.inherited
	rt.settle() // the pools have taken their spares
	var specs []supervisor.ChildSpec
	pools, programs := in.left()
	for path, size := range pools { // at least 1: there may be spares alone
		specs = append(specs, rt.poolSpec(path, workerPool, Pool{Name: leftID(path), Size: max(size, 1), Restart: supervisor.Temporary}, rt.up))
	}
	for _, path := range programs {
		start := programStarter{rt.backends.spawner, rt.shortages, rt.crashes, rt.generations.environ, &rt.stops, Process{Name: path}, path, in, rt.sockets}
		specs = append(specs, supervisor.ChildSpec{ID: leftID(path), Start: start, Restart: supervisor.Temporary})
	}
	for _, c := range specs {
		if _, err := rt.tree.StartChild(ctx, c); err != nil {
			return err
		}
		in.leftover = append(in.leftover, c.ID)
	}
	return nil
}

// leftID returns the ID that a child at a path has as a child of the root.
func leftID(path string) string { return "gone " + strings.ReplaceAll(path, "/", " ") }

// changeTree makes the tree that of the new program: it stops what startLeft has started, starts
// what is new, and gives the pools their sizes.
func (rt *Runtime) changeTree(ctx context.Context) error {
	in := rt.inherited
	for _, id := range in.leftover {
		if err := rt.tree.TerminateChild(ctx, id); err != nil && !errors.Is(err, supervisor.ErrStopped) {
			rt.log.Error("upgrade: stop what the new program does not have", "path", id, "err", err)
		}
	}
	for _, c := range in.later {
		if _, err := rt.tree.StartChild(ctx, c); err != nil {
			return treeStartError(err)
		}
	}
	for path, size := range in.resize {
		rt.sizes.forget(path)
		d, err := rt.pools.find(path)
		if err == nil {
			err = d.scale(ctx, func(int) int { return size }, "")
		}
		if err != nil && !errors.Is(err, ErrStopping) {
			return fmt.Errorf("coppice: give the pool %s the size %d: %w", path, size, err)
		}
	}
	return nil
}

// confirm ends the trial of an image that has taken over, which is up.
func (rt *Runtime) confirm() {
	in := rt.inherited
	in.goingBack.Lock()
	defer in.goingBack.Unlock()
	if !in.over.Swap(true) { // else it was late, and the old program cannot be executed: this one is up
		in.timer.Stop()
		rt.resumeTaken()
	}
	rt.sockets.EndFormer()
	rt.tree.Resume()      // what waits for its restart is restarted from now on
	go rt.finishUpgrade() // ends with the reload, which the end of the tree ends
}

// finishUpgrade brings the new program to the workers. If that fails, the master is to be the old
// program again.
func (rt *Runtime) finishUpgrade() {
	in := rt.inherited
	began, trace := in.execed, in.state.Upgrade
	beforeUpgradeStep("roll")
	defer beforeUpgradeStep("serve")
	defer func() {
		<-rt.reload
		if in.state.Again && !rt.ending() {
			_ = rt.Upgrade(context.Background()) // an error is in the log
		}
	}()
	defer close(in.rolled)
	if in.back != "" {
		rt.generations.finish(false)
		_ = rt.changeTree(context.Background()) // nothing is new
		err := &UpgradeError{"trial", errors.New(in.back)}
		if in.state.Back == "" {
			rt.lifecycle.BeginUpgrade(trace, tracing.SpanTrial).EndBack(in.execed, err)
		} else {
			err.Step = "roll"
			trace.Ended(tracing.SpanExec, image.Began)
			rt.lifecycle.BeginUpgrade(trace, tracing.SpanTrial).End(nil)
		}
		rt.log.Error("upgrade failed: the old program goes on", "err", err)
		rt.events.Put(Event{Time: time.Now(), Kind: TreeUpgraded, Err: err, Fault: true})
		return
	}
	trace.Ended(tracing.SpanExec, image.Began)
	trace.Ended(tracing.SpanTrial, time.Now())
	spans := rt.lifecycle.BeginUpgrade(trace, tracing.SpanRoll)
	ctx, end := in.untilFailure()
	defer end(nil)
	err := cmp.Or(rt.changeTree(ctx), context.Cause(ctx))
	if err == nil {
		to, begun := rt.generations.newest(), time.Now()
		err = rt.reloadTo(ctx, to, started.Args()[0], spans.Step(), false)
		rt.tellReloaded(begun, to, err)
	} else {
		rt.generations.finish(false)
	}
	if err != nil {
		err = cmp.Or(context.Cause(ctx), err)
	}
	spans.End(err)
	if err == nil {
		rt.log.Info("upgraded", "took", time.Since(began))
		rt.events.Put(Event{Time: time.Now(), Kind: TreeUpgraded, Took: time.Since(began)})
		return
	}
	if errors.Is(err, ErrStopping) {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), upgradeTimeout) // so that it can be mended by another one
	defer cancel()
	_ = rt.upgradeTo(ctx, rt.generations.current.exe, err.Error(), spans.Carrier())
}
