//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// struckVar is the variable with the path of a file that orders how a worker of "struck" ends: the
// first worker that finds it removes it, and ends so.
const struckVar = "COPPICE_TEST_STRUCK"

func init() {
	trees["struck"] = func() coppice.Config {
		return pool(2, func(ctx context.Context, w *coppice.Worker) error {
			if how, err := os.ReadFile(os.Getenv(struckVar)); w.Slot() == 1 && err == nil && os.Remove(os.Getenv(struckVar)) == nil {
				if string(how) == "error" {
					return errors.New("no such database")
				}
				_ = syscall.Kill(os.Getpid(), syscall.SIGKILL) // to the master as if from outside
				select {}
			}
			ln, err := w.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			return w.Serve(ctx, ln, name(w))
		})
	}
}

// TestStartStruck: a worker that is killed while the tree starts does not end the start; a worker
// that fails does, with its reason.
func TestStartStruck(t *testing.T) {
	order := filepath.Join(t.TempDir(), "order")
	t.Setenv(struckVar, order)
	if err := os.WriteFile(order, []byte("kill"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("killed", func(t *testing.T) {
		p := startTree(t, "struck")
		if _, err := os.Stat(order); !os.IsNotExist(err) {
			t.Fatal("no worker was killed")
		}
		p.allAnswer(2)
	})
	if err := os.WriteFile(order, []byte("error"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(treeVar, "struck")
	if _, err := coppice.Start(t.Context(), withReports(trees["struck"](), nil)); err == nil || !strings.Contains(err.Error(), "no such database") {
		t.Errorf("error %v", err)
	}
}

// TestStartOfBusyProgram: a program that is being written is waited for, as far as its
// StartTimeout goes, and then named.
func TestStartOfBusyProgram(t *testing.T) {
	sleep, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "program")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(sleep); err != nil {
		t.Fatal(err)
	}
	program := coppice.Process{Name: "program", Command: []string{path, "3600"}}
	cfg := func() coppice.Config { return coppice.Config{Children: []coppice.ChildSpec{program}} }
	err = withinLimits(func(limit time.Duration) error {
		program.StartTimeout = limit
		_, err := coppice.Start(t.Context(), cfg())
		return err
	}, syscall.ETXTBSY.Error())
	if !errors.Is(err, syscall.ETXTBSY) {
		t.Errorf("error %v, want ETXTBSY", err)
	}
	program.StartTimeout = runtimetest.Patience
	time.AfterFunc(50*time.Millisecond, func() { _ = f.Close() })
	rt, err := coppice.Start(t.Context(), cfg())
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
