package coppice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// roll rolls a pool to a generation. back marks the way back from a failed roll, which goes as far
// as it can. share is how many slots are to have the generation, 0 = all.
func (c *poolDriver) roll(ctx context.Context, to int, back bool, share int) error {
	select { // a pool that is starting has no slots to roll, unless its generation cannot start
	case <-c.supervisorSet:
	case <-c.misfit:
	case <-c.gone: // query reports it
	case <-ctx.Done():
		return &ReloadError{Identity: Identity{Generation: to}, Err: fmt.Errorf("%w, while pool %s was starting", context.Cause(ctx), c.path)}
	}
	began := time.Now()
	why := ""
	if share > 0 {
		why = fmt.Sprintf("canary, %d of %d slots", share, c.size())
	}
	c.note(pool.Spare, Event{Kind: PoolReloading, Identity: Identity{Generation: to}, Why: why})
	if !back {
		c.keepFailures(to)
		defer c.keepFailures(0)
	}
	var awaited string
	e, _ := c.query(ctx, pool.Event{Kind: pool.Roll, Gen: pool.Generation(to), Back: back, Share: share}, pool.Rolled, func() {
		awaited = c.awaited(to)
		c.step(pool.Event{Kind: pool.Abort})
	})
	var err error
	switch e.Result {
	case pool.Done:
		if share == 0 {
			c.generation.Store(int64(to))
			c.mu.Lock()
			c.deaths, c.generationBegan = map[int]int{to: c.deaths[to]}, time.Now()
			c.mu.Unlock()
		}
	case pool.Failed:
		err = c.rollError(e, to)
	case pool.Cancelled:
		err = &ReloadError{Identity: Identity{Generation: to}, Err: fmt.Errorf("%w, while %s", context.Cause(ctx), awaited)}
	case pool.Stopped:
		err = &ReloadError{Identity: Identity{Generation: to}, Err: fmt.Errorf("pool %s: %w", c.path, ErrStopping)}
	}
	c.note(pool.Spare, Event{Kind: PoolReloaded, Identity: Identity{Generation: to}, Why: why, Took: time.Since(began), Err: err})
	return err
}

// keepFailures makes the driver keep the workers of a generation that end; 0 = none.
func (c *poolDriver) keepFailures(generation int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rolling = generation
	clear(c.failedInRoll)
}

// awaited says what a roll to a generation waits for.
func (c *poolDriver) awaited(generation int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var next *poolWorker
	for _, w := range c.workers {
		if w.gen.number == generation && !w.hadSlot && w.slot >= 0 && (next == nil || w.slot < next.slot) {
			next = w
		}
	}
	switch {
	case next == nil:
		return "an old worker of pool " + c.path + " was ending"
	case !next.launched:
		return c.name(next.slot) + " was being launched"
	}
	return c.name(next.slot) + " was not ready: " + next.unready().missing()
}

// rollError returns the error of the worker that made a roll fail.
func (c *poolDriver) rollError(e pool.Effect, to int) error {
	err := &ReloadError{Identity: Identity{Name: c.name(e.Slot), Slot: e.Slot, Generation: to}, Err: errors.New("coppice: a worker failed")}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.failedInRoll[e.Worker]
	if w == nil {
		return err
	}
	if w.launched {
		process := w.identity()
		err.ID, err.PID, err.Incarnation, err.Lines = process.ID, process.PID, process.Incarnation, w.backend.printedLast()
		err.Err = fmt.Errorf("%s ended before the reload was over: %w", err.Name, endError(w.reason))
	}
	if w.err != nil {
		err.Err = w.err
	}
	said := withoutPrefix(err.Err)
	err.Lines = slices.DeleteFunc(err.Lines, func(l string) bool { return strings.HasSuffix(said, strings.TrimPrefix(l, "coppice: ")) })
	return err
}

// query passes the rules an event that they answer by an effect of kind, and waits for the effect.
// When ctx ends, giveUp makes the rules end it; if giveUp is nil, the wait ends.
func (c *poolDriver) query(ctx context.Context, q pool.Event, kind pool.EffectKind, giveUp func()) (e pool.Effect, ok bool) {
	ch := make(chan pool.Effect, 1)
	c.mu.Lock()
	c.pendingAnswers[kind] = append(c.pendingAnswers[kind], ch)
	c.stepLocked(q) // in the order of answers
	cancelled := ctx.Done()
	for {
		select {
		case e := <-ch:
			return e, true
		case <-c.gone: // perhaps before the event was passed
			select {
			case e := <-ch:
				return e, true
			default:
				return pool.Effect{Kind: kind, Result: pool.Stopped}, true
			}
		case <-cancelled:
			if giveUp == nil {
				return pool.Effect{}, false
			}
			giveUp()
			cancelled = nil
		}
	}
}
