package process

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSubreaper: what was left behind by others is reaped, and nothing else: not a
// child of os/exec, however late it is waited for, nor one of this package.
func TestSubreaper(t *testing.T) {
	const orphans = 20
	r, err := StartReaper(slog.New(slog.DiscardHandler), true, 20*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	late := exec.Command("sh", "-c", "exit 7")
	if err := late.Start(); err != nil {
		t.Fatal(err)
	}
	own, err := Start(Command{Path: "/bin/sh", Args: []string{"sh", "-c", "exit 8"}, Files: make([]*os.File, 3)})
	if err != nil {
		t.Fatal(err)
	}
	// The shell's shell leaves its child to whoever takes it.
	leave := exec.Command("sh", "-c", "i=0; while [ $i -lt 20 ]; do ( true & ); i=$((i+1)); done")
	if err := leave.Run(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); r.Reaped() < orphans; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d reaped of %d", r.Reaped(), orphans)
		}
	}
	<-own.Done()
	if code := own.Exit().Code; code != 8 || own.Exit().Lost != nil {
		t.Errorf("our own child: %+v", own.Exit())
	}
	if err := own.Close(); err != nil {
		t.Error(err)
	}
	if state, _, _ := stat(late.Process.Pid); state != 'Z' {
		t.Errorf("the child that is waited for late is in state %c", state)
	}
	var exit *exec.ExitError
	if err := late.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("the child that is waited for late: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
	if n := r.Reaped(); n != orphans {
		t.Errorf("%d reaped, want %d", n, orphans)
	}
	if _, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, syscall.ECHILD) {
		t.Errorf("children left: %v", err)
	}
}

// TestChildren: both ways to find them find the same.
func TestChildren(t *testing.T) {
	cmd := exec.Command("sleep", "3600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	for name, find := range map[string]func() ([]int, error){"by thread": children, "by parent": childrenByParent} {
		if kids, err := find(); err != nil || len(kids) != 1 || kids[0] != cmd.Process.Pid {
			t.Errorf("%s: %v, %v; want %d", name, kids, err, cmd.Process.Pid)
		}
	}
	if !heldByPidfd()[cmd.Process.Pid] {
		t.Skip("os/exec holds its children by their numbers only: this kernel has no pidfds for it")
	}
}
