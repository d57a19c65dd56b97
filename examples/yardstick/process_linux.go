package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/examples/yardstick/peers"
	"github.com/coppice-go/coppice/fdipc"
)

// process is the other process of a row.
type process struct {
	cmd *exec.Cmd
	own time.Duration // this process's time when it started
}

// role is the variable that tells a child what it is.
const role = "ROLE"

// spawn starts this program as a child and joins it by a Conn.
func spawn(name string, cfg fdipc.Config) (*fdipc.Conn, *process, error) {
	local, remote, err := fdipc.Socketpair()
	if err != nil {
		return nil, nil, err
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(exe)
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = []*os.File{remote}
	cmd.Env = append(os.Environ(), fdipc.Environ(3, map[string]string{role: name})...)
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	remote.Close()
	c, err := fdipc.New(local, cfg)
	if err != nil {
		return nil, nil, err
	}
	return c, &process{cmd: cmd, own: selfCPU()}, nil
}

// end waits for the child and returns the processor time of both since spawn, but for the child's start.
func (p *process) end() time.Duration {
	own := selfCPU() - p.own
	_ = p.cmd.Wait()
	return own + p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

func selfCPU() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// child runs the role this process was started with, if any.
func child() bool {
	if what := os.Getenv(peerVar); what != "" {
		unix.CloseOnExec(3)
		_ = unix.SetNonblock(3, true)
		if err := peers.Child(what, os.NewFile(3, "peer")); err != nil {
			fmt.Fprintln(os.Stderr, "yardstick:", err)
		}
		return true
	}
	f, env, ok, err := fdipc.Inherited()
	if err != nil {
		fmt.Fprintln(os.Stderr, "yardstick:", err)
		os.Exit(1)
	}
	if !ok {
		return false
	}
	children[env[role]](f)
	return true
}

func pinSelf() error {
	var set unix.CPUSet
	set.Set(0)
	runtime.GOMAXPROCS(1)
	os.Setenv("GOMAXPROCS", "1")
	// All threads there are; those to come inherit it.
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range tasks {
		tid, _ := strconv.Atoi(t.Name())
		if err := unix.SchedSetaffinity(tid, &set); err != nil {
			return err
		}
	}
	return nil
}

// dupTCP gives a descriptor of a TCP socket to make duplicates of.
func dupTCP() (int, error) {
	return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
}

func dup(fd int) int {
	r, _, e := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if e != 0 {
		return -1
	}
	return int(r)
}

var errSkip = errors.New("skipped")

var built struct {
	sync.Mutex
	dir  string
	path map[string]string
}

// buildC compiles peers/c/peer.c, which is part of this program, once.
func buildC() (string, error) {
	built.Lock()
	defer built.Unlock()
	if p := built.path["c"]; p != "" {
		return p, nil
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return "", fmt.Errorf("%w: no gcc", errSkip)
	}
	dir, err := os.MkdirTemp("", "yardstick")
	if err != nil {
		return "", err
	}
	src := filepath.Join(dir, "peer.c")
	if err := os.WriteFile(src, peers.C, 0o600); err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "peer")
	if out, err := exec.Command(gcc, "-O2", "-o", bin, src).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: gcc: %v\n%s", errSkip, err, out)
	}
	built.path = map[string]string{"c": bin}
	return bin, nil
}
