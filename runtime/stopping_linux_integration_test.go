//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// stops are workers, and the steps that it takes to end them.
var stops = map[string]struct {
	worker   coppice.WorkerFunc
	shutdown time.Duration
	steps    []string
	kind     supervisor.ReasonKind
}{
	"ends with its context": {idle, time.Minute, []string{"asked by frame"}, supervisor.Shutdown},
	"ignores its context": {func(_ context.Context, w *coppice.Worker) error {
		if err := w.Ready(); err != nil {
			return err
		}
		time.Sleep(time.Hour)
		return nil
	}, 500 * time.Millisecond, []string{"asked by frame", "SIGTERM", "SIGKILL"}, supervisor.Killed},
	"is killed brutally": {idle, supervisor.BrutalKill, []string{"SIGKILL"}, supervisor.Killed},
}

func init() {
	for name, s := range stops {
		trees["stop: "+name] = func() coppice.Config {
			return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 1, Worker: s.worker, Shutdown: s.shutdown}}}
		}
	}
}

// TestStopStepsOfWorker: what is done to end a worker, in which order, and when.
func TestStopStepsOfWorker(t *testing.T) {
	for name, tt := range stops {
		t.Run(name, func(t *testing.T) {
			p := startTree(t, "stop: "+name)
			sub := p.Events(coppice.FromNow)
			if err := p.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			for ev := range sub.All(t.Context()) {
				if ev.Kind != coppice.ChildStopped || ev.Path != "web/0" {
					continue
				}
				exit, ok := errors.AsType[*coppice.Exit](ev.Reason.Cause)
				if !ok {
					t.Fatalf("no exit in %v", ev)
				}
				var steps []string
				for _, s := range exit.Steps {
					steps = append(steps, s.What)
				}
				t.Log(exit.Steps)
				if !slices.Equal(steps, tt.steps) || ev.Reason.Kind != tt.kind {
					t.Errorf("steps %v, reason %v; want %v, %v", steps, ev.Reason, tt.steps, tt.kind)
				}
				return
			}
		})
	}
}
