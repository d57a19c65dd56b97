//go:build linux

package coppice_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// strategies are OTP's, with the slots of three that a kill of slot 1 replaces
// (O38, O40 and one_for_one's own).
var strategies = map[supervisor.Strategy][]int{
	supervisor.OneForOne:  {1},
	supervisor.OneForAll:  {0, 1, 2},
	supervisor.RestForOne: {1, 2},
}

func init() {
	for s := range strategies {
		trees["pool "+s.String()] = func() coppice.Config {
			return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 3, Strategy: s, Worker: idle}}}
		}
	}
}

// TestPoolStrategies: a pool takes any strategy over its slots, and the processes
// that change are those that OTP's would.
func TestPoolStrategies(t *testing.T) {
	for s, want := range strategies {
		t.Run(s.String(), func(t *testing.T) {
			p := startTree(t, "pool "+s.String())
			slot := func(pids map[string]int, i int) int { return pids[fmt.Sprintf("web/%d", i)] }
			before := p.processes()
			if err := syscall.Kill(slot(before, 1), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			// A new process in slot 1 that runs is also the end of the group's
			// restart once the last slot runs.
			var changed []int
			runtimetest.Eventually(t, "the pool is whole again", func() bool {
				now := p.processes()
				changed = nil
				for i := range 3 {
					if slot(now, i) == 0 {
						return false
					}
					if slot(now, i) != slot(before, i) {
						changed = append(changed, i)
					}
				}
				return slices.Contains(changed, 1) && len(changed) >= len(want)
			})
			if !slices.Equal(changed, want) {
				t.Errorf("slots %v were replaced, want %v", changed, want)
			}
			t.Logf("before %v, after %v", before, p.processes())
		})
	}
}
