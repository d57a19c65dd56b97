//go:build linux

package coppice_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	trees["titles"] = func() coppice.Config {
		return coppice.Config{
			Hooks: coppice.Hooks{Started: func(*coppice.Runtime) { fmt.Println("up") }},
			Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 1, Spares: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
				if _, err := w.Listen("tcp", "127.0.0.1:0"); err != nil {
					return err
				}
				fmt.Printf("worker %d: %q\n", os.Getpid(), os.Args[1:])
				if err := w.Ready(); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			}}},
		}
	}
}

// TestTitles: ps shows each process of the tree by its name, a spare by that of its slot once it
// has one; the arguments that the program reads stay.
func TestTitles(t *testing.T) {
	p := runtimetest.Start(t, []string{treeVar + "=titles"}, "some", "arguments")
	worker := p.Await(`worker (\d+): \["some" "arguments"\]`)[1]
	p.Await("^up$")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	of := filepath.Base(self) + ": "
	titles := func(pid int) map[string]int {
		got := map[string]int{}
		for _, child := range runtimetest.Children(t, pid) {
			b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))
			got[strings.TrimRight(string(b), "\x00")] = child
		}
		return got
	}
	runtimetest.Eventually(t, "a worker, a spare and a listener process in ps", func() bool {
		got := titles(p.PID())
		return len(got) == 3 && fmt.Sprint(got[of+"web/0"]) == worker && got[of+"web/spare"] != 0 && got[of+"listener"] != 0
	})
	p.Await("pool: spare ready") // a worker takes none before
	spare := titles(p.PID())[of+"web/spare"]
	if err := syscall.Kill(titles(p.PID())[of+"web/0"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "the spare has the worker's name", func() bool { return titles(p.PID())[of+"web/0"] == spare })
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
