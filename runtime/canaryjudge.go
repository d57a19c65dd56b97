package coppice

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/runtime/internal/canary"
	"github.com/coppice-go/coppice/tracing"
)

// rollOut rolls a pool to a generation; with a canary first a part of it, which is judged.
func (c *poolDriver) rollOut(ctx context.Context, from, to int) error {
	slots := min(c.pool.Canary.Slots, c.size()-1)
	if slots <= 0 {
		return c.roll(ctx, to, false, 0)
	}
	c.judging.Store(true)
	defer c.judging.Store(false)
	t := c.newTally(from, to)
	if err := c.roll(ctx, to, false, slots); err != nil {
		return err
	}
	limit := c.pool.Canary.For
	warm, warmed := time.Now().Add(limit/10), false
	err := c.judge(ctx, fmt.Sprintf("%d of %d slots", slots, c.size()), from, to, c.pool.Canary.rule(limit), func() (before, after canary.Side) {
		if !warmed && time.Now().After(warm) {
			t.restart(true)
			warmed = true
		}
		before, after = t.sample()
		c.baseline.Store(&before)
		return before, after
	})
	if err == nil {
		return c.roll(ctx, to, false, 0)
	}
	if errors.Is(err, ErrStopping) {
		return err
	}
	back := c.roll(context.WithoutCancel(ctx), from, true, 0)
	return errors.Join(&ReloadError{Identity: Identity{Generation: to}, Err: err}, back)
}

// canaryAttributes returns a verdict and both generations, the new one first, for a span.
func canaryAttributes(verdict string, before, after canary.Side) []attribute.KeyValue {
	failed := func(s canary.Side) float64 { return float64(s.Failed) / float64(max(s.Requests, 1)) }
	p99 := func(s canary.Side) float64 { return s.Quantile(0.99, 0).Seconds() }
	return []attribute.KeyValue{
		tracing.KeyCanaryVerdict.String(verdict),
		tracing.KeyCanaryCrashes.IntSlice([]int{after.Crashes, before.Crashes}),
		tracing.KeyCanaryRequests.Int64Slice([]int64{int64(after.Requests), int64(before.Requests)}),
		tracing.KeyCanaryFailed.Float64Slice([]float64{failed(after), failed(before)}),
		tracing.KeyCanaryP99.Float64Slice([]float64{p99(after), p99(before)}),
		tracing.KeyCanaryMemory.Int64Slice([]int64{after.Growth, before.Growth}),
	}
}

// judge looks at what both generations serve at each heartbeat, until there is a verdict or a
// human's order. It returns nil for forward, and otherwise why not. about is what is new, for the
// tree and the first event.
func (c *poolDriver) judge(ctx context.Context, about string, from, to int, cfg canary.Config, sample func() (before, after canary.Side)) (err error) {
	op := c.lifecycle.BeginOperation(tracing.SpanCanary, c.path, nil, tracing.KeyReloadFrom.Int(from), tracing.KeyReloadTo.Int(to))
	defer func() { op.End(err) }()
	var before, after canary.Side
	tell := func(why string, fault bool) {
		op.Set(canaryAttributes(why, before, after)...)
		c.note(None, Event{Kind: CanaryJudged, Identity: Identity{Generation: to}, Why: why, Fault: fault})
	}
	orders := c.orders.begin()
	defer c.orders.end(orders)
	defer c.judged.Store(nil)
	tell("begins: "+about, false)
	rule, began, held := canary.New(cfg), time.Now(), false
	tick := time.NewTicker(c.pool.Liveness.defaults().Every)
	defer tick.Stop()
	for {
		var order *bool
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w, while generation %d of pool %s was judged", context.Cause(ctx), to, c.path)
		case <-c.gone:
			return fmt.Errorf("pool %s: %w", c.path, ErrStopping)
		case promote := <-orders:
			order = &promote
		case <-tick.C:
		}
		before, after = sample()
		v := rule.Step(time.Since(began), before, after)
		if err := c.pool.Canary.worse(ctx, from, to); err != nil && order == nil {
			v.Course, v.Why = canary.Back, fmt.Sprintf("the program finds it worse: %v: %s", err, v.Why)
		}
		if order != nil {
			v.Course, v.Why = canary.Back, "as an operator asked: "+v.Why
			if *order {
				v.Course = canary.Forward
			}
		}
		says := fmt.Sprintf("generation %d is judged, %s: %s", to, about, v.Why)
		c.judged.Store(&says)
		switch v.Course {
		case canary.Wait:
		case canary.Hold:
			if !held {
				held = true
				tell("held: "+v.Why, false)
			}
		case canary.Forward:
			tell("forward: "+v.Why, false)
			return nil
		case canary.Back:
			tell("back: "+v.Why, true)
			return fmt.Errorf("%w: pool %s: %s", ErrWorse, c.path, v.Why)
		}
	}
}
