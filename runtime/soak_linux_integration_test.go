//go:build linux

package coppice_test

import (
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

func init() {
	trees["killed"] = func() coppice.Config {
		never := supervisor.Intensity{Max: 1 << 20, Period: time.Second} // is the budget used up
		return coppice.Config{Intensity: never, Children: []coppice.ChildSpec{
			coppice.Pool{Name: "web", Size: 2, Intensity: never, Worker: idle},
			coppice.Process{Name: "sleep", Command: []string{"sleep", "3600"}},
			coppice.Process{Name: "script", Command: []string{"sh", "-c", "sleep 3600 & echo here; wait"}, Ready: coppice.Ready{Line: "here"}},
			coppice.Process{Name: "settled", Command: []string{"sleep", "3600"}, Environment: coppice.Environment{Nice: 1}},
		}}
	}
}

// running returns the process of that name, once it is up: 0 before.
func (p *planted) running(name string) (pid int) {
	p.Snapshot().Walk(func(n coppice.Tree) {
		if n.Name == name && n.State == supervisor.Running.String() {
			pid = n.PID
		}
	})
	return pid
}

// TestKilledAgainAndAgain kills each process of a tree in turn, 1,000 in all with
// COPPICE_SOAK=1. The master's descriptors, goroutines and children, and the
// process groups, are as after the first.
func TestKilledAgainAndAgain(t *testing.T) {
	rounds := 10
	switch {
	case os.Getenv("COPPICE_SOAK") != "":
		rounds = 200
	case testing.Short():
		rounds = 3
	}
	p := plant(t, "killed")
	names := []string{"web/0", "web/1", "sleep", "script", "settled"}
	var fds, goroutines int
	var killed []int
	for round := range rounds + 1 {
		for _, name := range names {
			before := p.running(name)
			if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			killed = append(killed, before)
			runtimetest.Eventually(t, name+" replaced", func() bool {
				now := p.running(name)
				return now != 0 && now != before
			})
		}
		if round == 0 {
			runtimetest.Eventually(t, "settled", func() bool {
				had := goroutines
				fds, goroutines = len(runtimetest.Descriptors(t, os.Getpid())), runtime.NumGoroutine()
				return goroutines == had
			})
		}
	}
	runtimetest.Eventually(t, "descriptors, goroutines and children as after the first round", func() bool {
		kids := len(runtimetest.Children(t, os.Getpid()))
		ok := len(runtimetest.Descriptors(t, os.Getpid())) <= fds && runtime.NumGoroutine() <= goroutines && kids == len(names)+1 // the listener process
		return ok
	})
	for _, pid := range killed {
		runtimetest.Eventually(t, "its group has ended", func() bool { return !runtimetest.GroupAlive(t, pid) })
	}
	t.Logf("%d kills, %d descriptors, %d goroutines", len(killed), fds, goroutines)
}
