package runtimetest

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/internal/testrun"
)

// oneTree is held by the test whose tree runs: a program runs one at a time.
var (
	oneTree = make(chan struct{}, 1)
	holder  atomic.Value // its name
)

// Tree starts the tree of cfg in a test, as [coppice.Start] does, and returns it when every child
// is up. The tree is shut down when the test ends. Tree fails the test if the tree does not start,
// or does not end in order within [Patience]; an end that the test itself waited for is no failure.
//
// A process of the tree is the test binary once more: it runs this test, or subtest, alone, as far
// as this call. So the lines of the test before the call run in every process; let Tree be the
// first. Tests in parallel wait for each other's trees.
func Tree(t testing.TB, cfg coppice.Config) *coppice.Runtime {
	t.Helper()
	rt, err := startTree(t, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return rt
}

// startTree is [Tree], but returns the error of the start.
func startTree(t testing.TB, cfg coppice.Config) (*coppice.Runtime, error) {
	t.Helper()
	select {
	case oneTree <- struct{}{}:
	default:
		if name, _ := holder.Load().(string); name == t.Name() || strings.HasPrefix(t.Name(), name+"/") {
			t.Fatal(coppice.ErrRunning)
		}
		oneTree <- struct{}{}
	}
	holder.Store(t.Name())
	rt, err := coppice.Start(testrun.WithName(t.Context(), t.Name()), cfg)
	if err != nil {
		<-oneTree
		return nil, err
	}
	t.Cleanup(func() {
		defer func() { <-oneTree }()
		defer reportRaces(t, rt)
		select {
		case <-rt.Done():
			return
		default:
		}
		if err := shutdown(rt); err != nil {
			t.Errorf("the end of the tree: %v", err)
		}
	})
	return rt, nil
}

// PID returns the process number of the process of that name, for example web/0 or listener. It
// fails the test if there is none.
func PID(t testing.TB, rt *coppice.Runtime, name string) (pid int) {
	t.Helper()
	tree := rt.Snapshot()
	tree.Walk(func(n coppice.Tree) {
		if n.Name == name {
			pid = n.PID
		}
	})
	if pid == 0 {
		t.Fatalf("no process %s in\n%v", name, tree)
	}
	return pid
}

func shutdown(rt *coppice.Runtime) error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	return rt.Shutdown(ctx)
}

// raceCode is the exit code of a process in which the race detector has found something.
const raceCode = 66

// reportRaces fails the test if a process of the ended tree had a data race.
func reportRaces(t testing.TB, rt *coppice.Runtime) {
	t.Helper()
	for events := rt.Events(0); ; {
		e, err := events.Next(context.Background())
		if err != nil {
			return // the end
		}
		if exit, ok := errors.AsType[*coppice.Exit](e.Reason.Cause); ok && exit.Code == raceCode {
			t.Errorf("%s had a data race: see its output", e.Path)
		}
	}
}
