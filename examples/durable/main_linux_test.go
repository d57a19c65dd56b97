package main

import (
	"context"
	"testing"

	"github.com/coppice-go/coppice/examples/examplestest"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestAfter: only what is the job's doing counts against it.
func TestAfter(t *testing.T) {
	killed := func(why coppice.KillReason) error { return &jobs.DiedError{Exit: &coppice.Exit{Killed: why}} }
	for name, c := range map[string]struct {
		err   error
		state string // of a job that has killed a worker once
		had   int
	}{
		"its own error":       {&jobs.FuncError{Text: "bad"}, "failed", 2},
		"a panic":             {&jobs.PanicError{}, "failed", 2},
		"a death":             {killed(""), "failed", 2},
		"out of memory":       {killed(coppice.KilledMemory), "failed", 2},
		"a deadline":          {&jobs.DeadlineError{Killed: true}, "failed", 2},
		"too large":           {&jobs.TooLargeError{}, "failed", 2},
		"a reload":            {killed(coppice.KilledStop), "waiting", 1},
		"an operator":         {killed(coppice.KilledOperator), "waiting", 1},
		"the end of the tree": {&jobs.GoneError{Err: context.Canceled}, "waiting", 1},
		"a full queue":        {&jobs.FullError{}, "waiting", 1},
		"a drain":             {&jobs.CanceledError{Cause: context.Canceled}, "waiting", 1},
	} {
		if state, had := after(c.err, 1); state != c.state || had != c.had {
			t.Errorf("%s: %s after %d attempts, want %s after %d", name, state, had, c.state, c.had)
		}
	}
}

// TestChaos: jobs outlive the kill of the whole program and of a taker, and a reload. The one that
// kills its worker is set aside after the second death.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a PostgreSQL")
	}
	if programs() == "" {
		t.Skip("no PostgreSQL in /usr/lib/postgresql")
	}
	t.Setenv("DSN", "") // one of its own
	examplestest.Chaos(t)
}
