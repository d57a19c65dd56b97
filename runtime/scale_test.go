package coppice

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
)

// startingPool is a pool of two whose supervisor is not up yet.
func startingPool(t *testing.T) *poolDriver {
	t.Helper()
	gs := &generations{current: newGeneration(1, nil, nil)}
	c := newPoolDriver(poolParts{log: slog.New(slog.DiscardHandler), generations: gs, sizes: &poolSizes{}}, workerPool, "web", Pool{Size: 2}.complete())
	c.begin(1)
	t.Cleanup(c.endAlive)
	return c
}

// A pool that its supervisor restarts is found by Scale before its own supervisor is
// there to take another slot.
func TestScaleWhileStarting(t *testing.T) {
	c := startingPool(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.scale(ctx, func(int) int { return 4 }, ""); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if n := c.size(); n != 2 {
		t.Errorf("size %d: it was changed before it could be", n)
	}
	close(c.gone) // it did not come up
	if err := c.scale(t.Context(), func(int) int { return 4 }, ""); !errors.Is(err, ErrStopping) {
		t.Errorf("error %v", err)
	}
}

// A supervisor of jobs is scaled by the name of the pool below it.
func TestScaleNamesPoolBelow(t *testing.T) {
	c := startingPool(t)
	c.path = "parse/workers"
	for path, want := range map[string]string{
		"parse": `coppice: no such pool runs: "parse": its workers are parse/workers`,
		"par":   `coppice: no such pool runs: "par"`,
	} {
		if _, err := (&pools{all: []*poolDriver{c}}).find(path); !errors.Is(err, ErrNoPool) || err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

// Two signals at once are two steps.
func TestResizeAtOnce(t *testing.T) {
	c := startingPool(t)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() { c.sizes.resize(c.path, c.pool.Size, func(now int) int { return now + 1 }) })
	}
	all.Wait()
	if n := c.size(); n != 52 {
		t.Errorf("size %d, want 52", n)
	}
}

// A worker that ends when no roll is under way is not kept: a tree that is reloaded for years has
// many workers behind it.
func TestEndedWorkersAreForgotten(t *testing.T) {
	c := startingPool(t)
	for _, tt := range []struct {
		name    string
		rolling int
		kept    bool
	}{
		{"no roll", 0, false},
		{"of the generation that comes", 2, true},
		{"of another", 3, false},
	} {
		c.keepFailures(tt.rolling)
		w := &poolWorker{id: 1, gen: &generation{number: 2}, dismiss: func() {}}
		w.gen.hold()
		w.gen.hold()
		c.recordExit(w, errors.New("no process"))
		if _, kept := c.failedInRoll[1]; kept != tt.kept {
			t.Errorf("%s: kept %v", tt.name, kept)
		}
	}
	c.keepFailures(0)
	if len(c.failedInRoll) != 0 {
		t.Error("kept beyond the roll")
	}
}
