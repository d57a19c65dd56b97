package coppice_test

import (
	"fmt"
	"log/slog"

	coppice "github.com/coppice-go/coppice/runtime"
)

// Another program is a child like others: it is ready when it says so, and stopped in steps.
func ExampleProcess() {
	rt, end := start(coppice.Config{
		Logger: slog.New(slog.DiscardHandler),
		Output: coppice.LogOutput(slog.New(slog.DiscardHandler)),
		Children: []coppice.ChildSpec{coppice.Process{
			Name: "cache", Command: []string{"/bin/sh", "-c", "echo up; exec sleep 1000"},
			Ready:       coppice.Ready{Line: "^up$"},
			Environment: coppice.Environment{Env: []string{"LANG=C"}, Rlimits: []coppice.Rlimit{{Name: "core", Soft: 0, Hard: 0}}},
		}},
	})
	rt.Snapshot().Walk(func(t coppice.Tree) { fmt.Println(t.Name, t.Role, t.State) })
	end()
	fmt.Println("it has ended:", rt.Wait())
	// Output:
	// master master running
	// cache process running
	// it has ended: <nil>
}
