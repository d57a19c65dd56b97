package coppice

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/canary"
)

// EndCanary decides for a generation that is being judged (see [Canary]): forward, or back. It does
// not wait for what follows. If none is being judged, the error is ErrNoCanary.
func (rt *Runtime) EndCanary(promote bool) error {
	if !rt.orders.give(promote) {
		return ErrNoCanary
	}
	return nil
}

// watchReload judges a generation that all workers have, for as long as the Canary of each pool
// says, against what the one before served beside it; kept is that one, of which watchReload takes
// over a hold. If it becomes worse the tree goes back. It ends with the tree, and with the next
// reload.
func (rt *Runtime) watchReload(kept *generation, to int) {
	ctx, end := context.WithCancelCause(context.Background())
	rt.endWatch.Store(&end)
	var all sync.WaitGroup
	for _, c := range rt.pools.list() {
		before, limit := c.baseline.Swap(nil), c.pool.Canary.Watch
		if limit == 0 || before == nil {
			continue
		}
		cfg := c.pool.Canary.rule(limit)
		cfg.Late = true
		c.judging.Store(true)
		t, window := c.newTally(0, to), time.Now()
		t.restart(true)
		all.Go(func() {
			defer c.judging.Store(false)
			err := c.judge(ctx, fmt.Sprintf("for %v after the reload", limit), kept.number, to, cfg, func() (_, after canary.Side) {
				if now := time.Now(); now.Sub(window) > c.pool.Canary.For { // what is long ago would hide what is bad now
					t.restart(false)
					window = now
				}
				_, after = t.sample()
				return *before, after
			})
			if err != nil {
				end(err)
			}
		})
	}
	go func() { // ends with all, and with the reload back, which the end of the tree ends
		defer kept.release()
		all.Wait()
		if err := context.Cause(ctx); err != nil && errors.Is(err, ErrWorse) {
			_ = rt.goBack(context.Background(), kept, to, err) // the log and the events tell its end
		}
		end(nil)
	}()
}

// stopWatch ends the watch of the latest reload.
func (rt *Runtime) stopWatch() {
	if end := rt.endWatch.Load(); end != nil {
		(*end)(nil)
	}
}

// goBack brings the program and the configuration of a generation to the workers again, as a new
// generation, unless that of now is not to any more.
func (rt *Runtime) goBack(ctx context.Context, kept *generation, to int, why error) error {
	select {
	case rt.reload <- struct{}{}:
		defer func() { <-rt.reload }()
	case <-ctx.Done():
		return fmt.Errorf("coppice: go back: another reload is under way: %w", context.Cause(ctx))
	case <-rt.ended:
		return fmt.Errorf("coppice: go back: %w", ErrStopping)
	}
	if now := rt.generations.now(); now != to || rt.ending() {
		return fmt.Errorf("coppice: go back from generation %d: generation %d is there: another reload was faster", to, now)
	}
	rt.stopWatch()
	rt.log.Error("the tree goes back to the program of the generation before", "generation", to, "back to", kept.number, "err", why)
	began, again := time.Now(), rt.generations.again(kept).number
	err := rt.reloadTo(ctx, again, fmt.Sprintf("of generation %d", kept.number), nil, false)
	rt.tellReloaded(began, again, err)
	return err
}
