package coppice

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/supervisor"
)

// TestCrashLoopIsSlowed: beyond the budget a slot is restarted no more than about twice a second on
// average, however long each of its workers lives.
func TestCrashLoopIsSlowed(t *testing.T) {
	for _, life := range []time.Duration{0, 150 * time.Millisecond, 300 * time.Millisecond, 900 * time.Millisecond, 1100 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			p, lives := Pool{Size: 1}.complete(), 0
			worker := supervisor.Func(func(ctx context.Context) error {
				lives++
				select {
				case <-time.After(life):
				case <-ctx.Done():
				}
				return errors.New("boom")
			})
			s, err := supervisor.Start(t.Context(), supervisor.Spec{
				Intensity: p.Intensity, Backoff: p.Backoff, Persist: p.persists(), Children: []supervisor.ChildSpec{{ID: "0", Start: worker}},
			}, supervisor.Config{Logger: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			const minutes = 10
			time.Sleep(minutes * time.Minute)
			s.Stop()
			<-s.Done()
			if most := minutes*60*2*11/10 + p.Intensity.Max; lives > most {
				t.Errorf("a worker that lives for %v was started %d times in %d minutes, want at most %d", life, lives, minutes, most)
			}
		})
	}
}

// TestFairShare: a pool's workers share nine tenths of the master's memory, and a limit of their
// own that is less is theirs.
func TestFairShare(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(1000 << 20))
	fair := Environment{MemoryLimit: FairShare}
	if got, want := fair.memoryLimit(4), int64(225<<20); got != want {
		t.Errorf("of four workers each has %d, want %d", got, want)
	}
	fair.Resources.MemoryMax = 100 << 20
	if got, want := fair.memoryLimit(4), int64(90<<20); got != want {
		t.Errorf("with a MemoryMax it is %d, want %d", got, want)
	}
	if got := (Environment{}).memoryLimit(4); got != 0 {
		t.Errorf("without FairShare it is %d", got)
	}
}
