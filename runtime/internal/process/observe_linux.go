package process

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Waited returns how long the threads that the process has now have waited for a CPU while they had
// work to do, in sum (run_delay in /proc/PID/task/*/schedstat). It returns an error on a kernel
// that does not count it, and once the process has ended.
func (p *Process) Waited() (time.Duration, error) {
	var sum time.Duration
	err := p.eachThread(func(dir string) {
		b, err := os.ReadFile(filepath.Join(dir, "schedstat"))
		if err != nil {
			return // that thread has ended
		}
		if f := strings.Fields(string(b)); len(f) == 3 { // on a CPU, waited, slices
			ns, _ := strconv.ParseInt(f[1], 10, 64)
			sum += time.Duration(ns)
		}
	})
	if _, statErr := os.Stat("/proc/self/schedstat"); statErr != nil {
		return 0, fmt.Errorf("process: %w", statErr)
	}
	return sum, err
}

// Traced reports whether a debugger traces the process.
func (p *Process) Traced() bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(b, []byte("\nTracerPid:"))
	tracer, _, _ := bytes.Cut(rest, []byte("\n"))
	tracer = bytes.TrimSpace(tracer)
	return len(tracer) > 0 && string(tracer) != "0"
}

// Abort sends SIGABRT to the process alone, which makes a Go program print the stacks of all its
// goroutines and exit with 2, and SIGCONT, in case it is stopped. The program prints first, and in
// full, the stack of the goroutine on the thread that gets the signal. It does not print the stacks
// on other running threads. So Abort signals the running thread that has used the most CPU, if a
// thread runs: in a process that hangs in a loop, that thread runs the loop.
func (p *Process) Abort() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return nil
	}
	var err error = unix.ESRCH
	if tid := p.busiest(); tid != 0 {
		err = unix.Tgkill(p.pid, tid, syscall.SIGABRT)
	}
	if err != nil {
		err = unix.Kill(p.pid, syscall.SIGABRT)
	}
	return errors.Join(os.NewSyscallError("kill", err), os.NewSyscallError("kill", unix.Kill(p.pid, syscall.SIGCONT)))
}

// busiest returns the running thread that has used the most CPU, or 0.
func (p *Process) busiest() (tid int) {
	var most uint64
	_ = p.eachThread(func(dir string) { // on an error busiest returns 0
		// After state, utime and stime are the 12th and 13th field (proc_pid_stat(5)).
		f, _, _ := statFields(dir)
		if len(f) < 13 || f[0] != "R" {
			return
		}
		utime, _ := strconv.ParseUint(f[11], 10, 64)
		stime, _ := strconv.ParseUint(f[12], 10, 64)
		if used := utime + stime; used >= most {
			most = used
			tid, _ = strconv.Atoi(filepath.Base(dir))
		}
	})
	return tid
}

// eachThread calls f with the directory of each thread of the process in /proc.
func (p *Process) eachThread(f func(dir string)) error {
	tasks := fmt.Sprintf("/proc/%d/task", p.pid)
	entries, err := os.ReadDir(tasks)
	if err != nil {
		return err
	}
	for _, e := range entries {
		f(filepath.Join(tasks, e.Name()))
	}
	return nil
}
