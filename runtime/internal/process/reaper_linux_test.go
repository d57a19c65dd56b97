package process

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSubreaper: only orphans are reaped: not a child of os/exec, however late the program waits
// for it, nor a child of this package.
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
	// The subshells end before their children, which become orphans.
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
	if state, _, _, _ := stat(late.Process.Pid); state != 'Z' {
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

// TestSubreaperWithoutPidfd: orphans are reaped where a seccomp profile refuses pidfd_open.
func TestSubreaperWithoutPidfd(t *testing.T) {
	for _, e := range refusals {
		c := run(t, "reaper", Command{Env: []string{fmt.Sprintf("REFUSE=%d", e)}})
		if said := c.line(); said != "reaped" {
			t.Errorf("%v: %s", e, said)
		}
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
	held, err := heldByPidfd()
	if err != nil {
		t.Fatal(err)
	}
	if !held[cmd.Process.Pid] {
		t.Skip("os/exec holds its children by their numbers only: this kernel has no pidfds for it")
	}
}

func init() {
	// starves has a child that it holds, and one that it does not and is taken for a
	// stranger's, and at first no descriptor to look around with.
	programs["starves"] = func() {
		start := func() (pid, pidfd int) {
			pid, err := syscall.ForkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{PidFD: &pidfd}})
			must(err)
			must(unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil))
			return pid, pidfd
		}
		mine, _ := start()
		stranger, pidfd := start()
		must(unix.Close(pidfd))
		r := &Reaper{log: slog.New(slog.DiscardHandler)} // a grace of 0: a zombie is ripe at once
		look := func() {
			_, err := r.look()
			fmt.Println(errors.Is(err, unix.EMFILE), r.Reaped())
		}
		var had unix.Rlimit
		must(unix.Getrlimit(unix.RLIMIT_NOFILE, &had))
		next, err := unix.Dup(0)
		must(err)
		must(unix.Close(next))
		must(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(next), Max: had.Max}))
		_, err = heldByPidfd()
		fmt.Println(errors.Is(err, unix.EMFILE))
		look()
		must(unix.Setrlimit(unix.RLIMIT_NOFILE, &had))
		look()
		for _, pid := range []int{mine, stranger} {
			_, err := unix.Wait4(pid, nil, 0, nil)
			fmt.Println(err)
		}
	}
}

// TestReaperStarves: without descriptors to find out which children are held, no zombie is reaped;
// the zombies are reaped later.
func TestReaperStarves(t *testing.T) {
	c := run(t, "starves", Command{})
	for _, want := range []string{
		"true", "true 0", // starved
		"false 1", "<nil>", "no child processes", // and later
	} {
		if l := c.line(); l != want {
			t.Errorf("%q, want %q", l, want)
		}
	}
	if e := c.wait(); e.Code != 0 {
		t.Errorf("ended with %+v", e)
	}
}
