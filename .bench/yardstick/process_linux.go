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

	"github.com/coppice-go/coppice/bench/yardstick/peers"
	"github.com/coppice-go/coppice/fdipc"
)

// process is the other process of a row.
type process struct {
	cmd  *exec.Cmd
	used time.Duration // processor time of both, this one and that, until the row began
}

// role is the environment variable with the part that a child plays.
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
	p := &process{cmd: cmd}
	p.begin()
	return c, p, nil
}

// begin has the row begin now: what went before does not count.
func (p *process) begin() { p.used = selfCPU() + p.childCPU() }

func (p *process) childCPU() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(int32(^p.cmd.Process.Pid<<3|2), &t) // clock_getcpuclockid(3)
	return time.Duration(t.Nano())
}

// end waits for the child and returns the processor time of both since begin.
func (p *process) end() time.Duration {
	own := selfCPU()
	_ = p.cmd.Wait()
	return own - p.used + p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

func selfCPU() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// childrenCPU is the processor time of the children that have been waited for.
func childrenCPU() time.Duration {
	var r unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_CHILDREN, &r)
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// child runs the role this process was started with, if any.
func child() bool {
	if len(os.Args) > 1 { // a command, or a process of its tree; ours have no arguments
		return false
	}
	switch what := os.Getenv(peerVar); what {
	case "":
	case "none":
		return true
	case "accept", "http":
		id, _ := strconv.Atoi(os.Getenv(peerID))
		fmt.Fprintln(os.Stderr, "yardstick:", peers.Serve(what, byte('0'+id), os.NewFile(3, "listener")))
		return true
	case "remote":
		if err := peers.RemoteWorker(); err != nil {
			fmt.Fprintln(os.Stderr, "yardstick:", err)
		}
		return true
	default:
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

// sources are the programs in C, which are part of this one.
var sources = map[string][]byte{"peer": peers.C, "accept": peers.AcceptC}

// buildC compiles a program in C, once, until removeBuilt.
func buildC(name string) (string, error) {
	built.Lock()
	defer built.Unlock()
	if p := built.path[name]; p != "" {
		return p, nil
	}
	gcc, err := exec.LookPath("gcc")
	if err != nil {
		return "", fmt.Errorf("%w: no gcc", errSkip)
	}
	dir, err := buildDir()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, name)
	if err := os.WriteFile(bin+".c", sources[name], 0o600); err != nil {
		return "", err
	}
	if out, err := exec.Command(gcc, "-O2", "-o", bin, bin+".c").CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: gcc: %v\n%s", errSkip, err, out)
	}
	built.path[name] = bin
	return bin, nil
}

// buildDir is where programs are built, until removeBuilt. built is locked.
func buildDir() (string, error) {
	if built.path != nil {
		return built.dir, nil
	}
	dir, err := os.MkdirTemp("", "yardstick")
	if err == nil {
		built.dir, built.path = dir, make(map[string]string)
	}
	return dir, err
}

func removeBuilt() {
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
	}
}
