//go:build linux

package coppice_test

import (
	"os"
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

// running returns the process of that name, once it is up; 0 before.
func (p *runningTree) running(name string) (pid int) {
	p.Snapshot().Walk(func(n coppice.Tree) {
		if n.Name == name && n.State == coppice.StateRunning {
			pid = n.PID
		}
	})
	return pid
}

// TestKilledAgainAndAgain kills each process of a tree in turn, 1,000 in all with
// COPPICE_SOAK=1. The master's descriptors, goroutines and children, and the
// process groups, are as after the first, and neither it nor the listener process, which
// had a channel to each of those that are gone, is bigger.
func TestKilledAgainAndAgain(t *testing.T) {
	rounds := 10
	switch {
	case os.Getenv("COPPICE_SOAK") != "":
		rounds = 200
	case testing.Short():
		rounds = 3
	}
	p := startTree(t, "killed")
	names := []string{"web/0", "web/1", "sleep", "script", "settled"}
	var before, now rest
	var listener int64 // bytes
	var killed []int
	for round := range rounds + 1 {
		for _, name := range names {
			was := p.running(name)
			if err := syscall.Kill(was, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			killed = append(killed, was)
			runtimetest.Eventually(t, name+" replaced", func() bool {
				pid := p.running(name)
				return pid != 0 && pid != was
			})
		}
		if round == 0 {
			before = p.atRest()
			listener = runtimetest.Resident(t, p.running("listener"))
		}
	}
	now = p.atRest()
	now.mustBe(t, before)
	if kids := len(names) + 1; now.kids != kids { // the listener process
		t.Errorf("%d children, want %d", now.kids, kids)
	}
	if grew := runtimetest.Resident(t, p.running("listener")) - listener; grew > 2*slack && !raced() {
		t.Errorf("the listener process is %d KiB bigger", grew>>10)
	}
	for _, pid := range killed {
		runtimetest.Eventually(t, "its group has ended", func() bool { return !runtimetest.GroupAlive(t, pid) })
	}
	t.Logf("%d kills: %v before, %v after; the listener process had %d KiB, and has %d", len(killed), before, now,
		listener>>10, runtimetest.Resident(t, p.running("listener"))>>10)
}
