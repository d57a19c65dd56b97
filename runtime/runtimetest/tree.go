package runtimetest

import (
	"context"
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
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer func() { <-oneTree }()
		select {
		case <-rt.Done():
			return
		default:
		}
		ctx, cancel := context.WithTimeout(context.Background(), Patience)
		defer cancel()
		if err := rt.Shutdown(ctx); err != nil {
			t.Errorf("the end of the tree: %v", err)
		}
	})
	return rt
}
