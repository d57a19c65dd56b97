package supervisortest_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/supervisor/supervisortest"
)

func never(context.Context) error { panic("the children of a Stage are fakes") }

func tree() supervisor.Spec {
	return supervisor.Spec{
		Name: "app", Strategy: supervisor.RestForOne,
		Intensity: supervisor.Intensity{Max: 9, Period: time.Minute},
		Backoff:   supervisor.Backoff{Initial: time.Second},
		Children: []supervisor.ChildSpec{
			{ID: "db", Start: supervisor.Func(never)},
			{ID: "web", Start: supervisor.Func(never)},
			{ID: "media", Restart: supervisor.Transient, Start: supervisor.Spec{
				Intensity: supervisor.Intensity{Max: 1, Period: time.Minute},
				Children:  []supervisor.ChildSpec{{ID: "encoder", Start: supervisor.Func(never)}},
			}},
		},
	}
}

// TestUserTree plays a script on a user's own tree.
func TestUserTree(t *testing.T) {
	supervisortest.Golden(t, tree(), "testdata/user_tree.txt")
}

// TestFakes runs a real supervisor with fake children and a fake clock.
func TestFakes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	clock, a, b := supervisortest.NewClock(), supervisortest.NewChild(), supervisortest.NewChild()
	s, err := supervisor.Start(ctx, supervisor.Spec{
		Intensity: supervisor.Intensity{Max: 9, Period: time.Minute},
		Backoff:   supervisor.Backoff{Initial: time.Hour, NoJitter: true},
		Children:  []supervisor.ChildSpec{{ID: "a", Start: a}, {ID: "b", Start: b, Restart: supervisor.Temporary}},
	}, supervisor.Config{Clock: clock, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	down := errors.New("down")
	a.FailStarts(down, nil)
	a.Exit(supervisor.ReasonOf(down))
	for range 2 { // the crash, and the start that fails
		if err := clock.WaitTimers(ctx, 1); err != nil {
			t.Fatal(err)
		}
		clock.Advance(time.Hour)
	}
	if err := a.WaitStarts(ctx, 2); err != nil {
		t.Fatal(err)
	}
	b.IgnoreStop()
	stopped := make(chan error, 1)
	go func() { stopped <- s.TerminateChild(ctx, "b") }()
	if err := clock.WaitTimers(ctx, 1); err != nil {
		t.Fatal(err)
	}
	clock.Advance(supervisor.DefaultShutdown)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	a.StopWith(supervisor.Reason{Kind: supervisor.ShutdownDetail, Detail: "bye"})
	if err := s.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if a.Starts() != 2 || b.Exit(supervisor.Reason{}) {
		t.Errorf("a came up %d times", a.Starts())
	}
}
