package main

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
)

const (
	copies  = 2           // workers that have a session
	attempt = time.Second // bounds one try
)

// client reads and writes sessions wherever they are.
type client struct {
	sys   *actors.System
	group actors.Group
}

// each asks the keepers of a key, all at once, and returns their answers. If one of
// them dies it asks the new keepers.
func (c *client) each(ctx context.Context, key string, msg any) ([]entry, error) {
	for {
		keepers, err := c.group.Rank(ctx, key)
		if err != nil {
			return nil, err
		}
		keepers = keepers[:min(copies, len(keepers))]
		got, err := c.ask(ctx, keepers, msg)
		switch {
		case err == nil && len(keepers) > 0:
			return got, nil
		case err != nil && !errors.Is(err, actors.ErrDown) && !errors.Is(err, actors.ErrNoActor):
			return nil, err
		}
		select { // until the master has announced the end
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return nil, errors.Join(err, context.Cause(ctx))
		}
	}
}

func (c *client) ask(ctx context.Context, keepers []*actor.PID, msg any) ([]entry, error) {
	ctx, cancel := context.WithTimeout(ctx, attempt)
	defer cancel()
	got, errs := make([]entry, len(keepers)), make([]error, len(keepers))
	var wg sync.WaitGroup
	for i, pid := range keepers {
		wg.Go(func() {
			got[i], errs[i] = actors.Ask[entry](ctx, c.sys, pid, msg)
		})
	}
	wg.Wait()
	return got, errors.Join(errs...)
}

// read returns the latest version that the keepers of a key have, and gives it to keepers with an
// older one: the replacement of a worker may have missed it.
func (c *client) read(ctx context.Context, key string) (entry, error) {
	got, err := c.each(ctx, key, get{key})
	if err != nil {
		return entry{}, err
	}
	latest, older := got[0], false
	for _, e := range got[1:] {
		older = older || e != latest
		if e.later(latest) {
			latest = e
		}
	}
	if older {
		_, err = c.each(ctx, key, put{latest})
	}
	return latest, err
}

// write stores a value at all keepers of its key.
func (c *client) write(ctx context.Context, key, value string, writer int) (entry, error) {
	last, err := c.read(ctx, key)
	if err != nil {
		return entry{}, err
	}
	e := entry{key, value, last.Version + 1, writer}
	_, err = c.each(ctx, key, put{e})
	return e, err
}

// restore fills a new store with what its siblings have, before it has its name.
// What they get after that, it gets by read.
func (c *client) restore(ctx context.Context, own *actor.PID) (int, error) {
	members, err := c.group.Members(ctx)
	if err != nil {
		return 0, err
	}
	restored := map[string]bool{}
	for _, sibling := range members {
		entries, err := actors.Ask[[]entry](ctx, c.sys, sibling, dump{})
		if errors.Is(err, actors.ErrDown) || errors.Is(err, actors.ErrNoActor) {
			continue // it is being replaced too
		}
		if err != nil {
			return 0, err
		}
		for _, e := range entries {
			if _, err := c.sys.Ask(ctx, own, put{e}); err != nil {
				return 0, err
			}
			restored[e.Key] = true
		}
	}
	return len(restored), nil
}
