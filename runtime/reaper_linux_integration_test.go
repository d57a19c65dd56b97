//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// orphans is how many each of the two leaves behind.
const orphans = 50

// leaveOrphans starts processes and leaves them to their next parent.
func leaveOrphans() error {
	return exec.Command("sh", "-c", fmt.Sprintf("i=0; while [ $i -lt %d ]; do ( true & ); i=$((i+1)); done", orphans)).Run()
}

func init() {
	trees["leaves orphans"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			if err := leaveOrphans(); err != nil {
				return err
			}
			return idle(ctx, w)
		})
	}
	programs["process 1"] = func() {
		if err := processOne(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("all is well")
	}
}

// processOne is a program that is process 1 of its namespace and starts further processes beside a
// tree.
func processOne() error {
	if os.Getpid() != 1 {
		return fmt.Errorf("this is process %d", os.Getpid())
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts of its own: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("proc: %w", err)
	}
	if err := os.Setenv(treeVar, "leaves orphans"); err != nil {
		return err
	}
	rt, err := coppice.Start(context.Background(), withReports(trees["leaves orphans"](), nil))
	if err != nil {
		return err
	}
	late := exec.Command("sh", "-c", "exit 7")
	if err := late.Start(); err != nil {
		return err
	}
	if err := leaveOrphans(); err != nil {
		return err
	}
	for deadline := time.Now().Add(runtimetest.Patience); rt.Snapshot().Reaped < 2*orphans; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("%d reaped of %d", rt.Snapshot().Reaped, 2*orphans)
		}
	}
	var exit *exec.ExitError
	if err := late.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		return fmt.Errorf("a child of the program's own: %w", err)
	}
	soon := exec.Command("sh", "-c", "exit 8")
	if err := soon.Run(); !errors.As(err, &exit) || exit.ExitCode() != 8 {
		return fmt.Errorf("another child of the program's own: %w", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), runtimetest.Patience)
	defer cancel()
	if err := rt.Shutdown(ctx); err != nil {
		return err
	}
	if n := rt.Snapshot().Reaped; n != 2*orphans {
		return fmt.Errorf("%d reaped, want %d", n, 2*orphans)
	}
	var status syscall.WaitStatus
	if pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
		return fmt.Errorf("a child is left: %d, %w", pid, err)
	}
	return nil
}

// TestProcessOne: a master that is process 1 of a PID namespace reaps the orphans that it gets, its
// workers' and others', and no child that the program itself waits for, however late (P68).
func TestProcessOne(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), programVar+"=process 1", coppice.GraceVar+"=20ms")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) {
		t.Skipf("no PID namespace of our own: %v", err)
	}
	if err != nil || !strings.HasSuffix(strings.TrimSpace(string(out)), "all is well") {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestTooDeep: a program that a tree has started may start a tree, but not for
// ever (P69).
func TestTooDeep(t *testing.T) {
	for depth, refused := range map[string]bool{"": false, "2": false, "3": true, "30": true, "-1": false, "x": false} {
		t.Setenv("COPPICE_DEPTH", depth)
		cfg := coppice.Config{Children: []coppice.ChildSpec{coppice.Func{
			Name: "f", Run: func(ctx context.Context) error { <-ctx.Done(); return nil },
		}}}
		rt, err := coppice.Start(t.Context(), cfg)
		if errors.Is(err, coppice.ErrTooDeep) != refused {
			t.Errorf("at depth %q: error %v", depth, err)
		}
		if err != nil {
			continue
		}
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Errorf("at depth %q: shutdown: %v", depth, err)
		}
	}
}
