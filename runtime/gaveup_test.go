package coppice_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
)

// TestGivesUpWhileItStarts: a child that fails beyond the budget while a later one is being started
// is the reason of the error. It used to be that the later one's start was cancelled.
func TestGivesUpWhileItStarts(t *testing.T) {
	boom := errors.New("address already in use")
	begun := make(chan struct{})
	rt, err := coppice.Start(t.Context(), coppice.Config{
		Logger: slog.New(slog.DiscardHandler), ListenerIsolation: coppice.GoroutineIsolation,
		Children: []coppice.ChildSpec{
			coppice.Func{Name: "admin", Run: func(context.Context) error { <-begun; return boom }},
			coppice.Pool{Name: "web", Size: 1, Isolation: coppice.GoroutineIsolation, Worker: func(ctx context.Context, _ *coppice.Worker) error {
				close(begun)
				<-ctx.Done()
				return nil
			}},
		},
	})
	if err == nil {
		_ = rt.Shutdown(t.Context())
		t.Fatal("it has started")
	}
	if want := "coppice: the tree ended: gave up: more than 1 restarts in 5s: master/admin: error: address already in use"; !errors.Is(err, boom) || err.Error() != want {
		t.Errorf("the error is %v", err)
	}
}
