package supervisor

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"
)

var quiet = Config{Logger: slog.New(slog.DiscardHandler)}

// idle is a function child that runs until it is stopped.
func idle(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestStartAndShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		crash := make(chan error)
		s, err := Start(t.Context(), Spec{Name: "app", Children: []ChildSpec{
			{ID: "a", Start: Func(idle)},
			{ID: "b", Start: Func(func(ctx context.Context) error {
				select {
				case err := <-crash:
					return err
				case <-ctx.Done():
					return nil
				}
			})},
			{ID: "s", Start: Spec{Children: []ChildSpec{{ID: "x", Start: Func(idle)}}}},
		}}, quiet)
		if err != nil {
			t.Fatal(err)
		}
		sub := s.Subscribe(100)
		crash <- errors.New("boom")
		synctest.Wait()
		n := s.Snapshot()
		if got := n.Find("b").Incarnation; got != 2 {
			t.Errorf("b is #%d, want #2", got)
		}
		t.Logf("\n%v", n)
		if err := s.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		for ev := range sub.Events(t.Context()) {
			t.Log(ev)
		}
		if got := s.Reason().Kind; got != Shutdown {
			t.Errorf("reason %v", got)
		}
		_ = time.Second
	})
}
