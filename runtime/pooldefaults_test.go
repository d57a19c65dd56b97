package coppice

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
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

// TestFairShare: a pool's workers share nine tenths of the memory, and a limit of their own that is
// less is theirs. They do so unless told to where a cgroup limits the master, and only there; the
// most workers that there may be count.
func TestFairShare(t *testing.T) {
	const mib = 1 << 20
	fair := Environment{MemoryLimit: FairShare}
	for name, c := range map[string]struct {
		pool   Pool
		size   int // 0 = the pool's
		env    string
		cgroup int64 // of 1,000 MiB of memory
		want   int64
	}{
		"no limit of a cgroup":         {Pool{Size: 4}, 0, "", 0, 0},
		"asked for":                    {Pool{Size: 4, Environment: fair}, 0, "", 0, 225 * mib},
		"its own limit is less":        {Pool{Size: 4, Environment: Environment{MemoryLimit: FairShare, Resources: Resources{MemoryMax: 100 * mib}}}, 0, "", 0, 90 * mib},
		"a number":                     {Pool{Size: 4, Environment: Environment{MemoryLimit: 7}}, 0, "", 1000 * mib, 7},
		"a cgroup limits the master":   {Pool{Size: 4}, 0, "", 1000 * mib, 225 * mib},
		"scaled up":                    {Pool{Size: 4}, 5, "", 1000 * mib, 180 * mib},
		"scaled down":                  {Pool{Size: 4}, 1, "", 1000 * mib, 225 * mib},
		"autoscaled":                   {Pool{Size: 2, Autoscale: Autoscale{Max: 10}}, 0, "", 1000 * mib, 90 * mib},
		"spares":                       {Pool{Size: 4, Spares: 1}, 0, "", 1000 * mib, 180 * mib},
		"GOMEMLIMIT of the user":       {Pool{Size: 4}, 0, "GOMEMLIMIT=100MiB", 1000 * mib, 0},
		"GOMEMLIMIT off":               {Pool{Size: 4}, 0, "GOMEMLIMIT=off", 1000 * mib, 0},
		"a cgroup of its own":          {Pool{Size: 4, Environment: Environment{Cgroup: "shop"}}, 0, "", 1000 * mib, 0},
		"a limit of its own":           {Pool{Size: 4, Environment: Environment{Resources: Resources{MemoryMax: 1}}}, 0, "", 1000 * mib, 0},
		"recycled by memory":           {Pool{Size: 4, Recycle: Recycle{SoftMemory: 1}}, 0, "", 1000 * mib, 0},
		"killed by memory":             {Pool{Size: 4, Recycle: Recycle{HardMemory: 1}}, 0, "", 1000 * mib, 0},
		"asked for, and recycled":      {Pool{Size: 4, Environment: fair, Recycle: Recycle{SoftMemory: 1}}, 0, "", 1000 * mib, 225 * mib},
		"asked for, and GOMEMLIMIT is": {Pool{Size: 4, Environment: fair}, 0, "GOMEMLIMIT=1000MiB", 0, 225 * mib},
	} {
		if got := c.pool.environment(cmp.Or(c.size, c.pool.Size), []string{"HOME=/", c.env}, c.cgroup, 1000*mib).MemoryLimit; got != c.want {
			t.Errorf("%s: each worker has %d, want %d", name, got, c.want)
		}
	}
}
