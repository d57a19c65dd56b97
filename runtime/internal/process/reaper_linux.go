package process

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/image"
)

// Grace is how long the Reaper waits before it reaps a zombie that this program does not hold.
const Grace = 5 * time.Second

// A Reaper reaps orphans: children that this program did not start and that the kernel gave to it
// when their parent died, because it is process 1 of a PID namespace or a subreaper. It never reaps
// a child that the program holds by a pidfd, through this package, os/exec or os, however late the
// program waits for it. A child that was started otherwise (syscall.ForkExec, C) is reaped after
// the grace.
type Reaper struct {
	log    *slog.Logger
	core   strangers
	ended  chan os.Signal
	stop   chan struct{}
	done   chan struct{}
	reaped atomic.Uint64

	subreaper bool // whether the program was a subreaper before
	changed   bool
	few       bool // whether it reaps only what the image before left
}

// StartReaper begins to reap. If subreaper is set, it makes this program a subreaper until Close;
// otherwise the program should be process 1. If it is not, in an image after an exec, it reaps only
// what [StrangersLeft] tells of. A grace of 0 means [Grace].
func StartReaper(log *slog.Logger, subreaper bool, grace time.Duration) (*Reaper, error) {
	if grace == 0 {
		grace = Grace
	}
	r := &Reaper{
		log: log, core: strangers{grace: grace},
		ended: make(chan os.Signal, 1), stop: make(chan struct{}), done: make(chan struct{}),
	}
	if subreaper {
		var was int32
		if err := unix.Prctl(unix.PR_GET_CHILD_SUBREAPER, uintptr(unsafe.Pointer(&was)), 0, 0, 0); err != nil {
			return nil, os.NewSyscallError("prctl", err)
		}
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return nil, os.NewSyscallError("prctl", err)
		}
		r.subreaper, r.changed = was != 0, true
	}
	r.few = image.Replaced() && !subreaper && os.Getpid() != 1
	signal.Notify(r.ended, syscall.SIGCHLD) // other code may get the signal too
	go r.run()                              // ends with Close, or when no stranger is left
	return r, nil
}

// Reaped returns how many orphans were reaped until now.
func (r *Reaper) Reaped() uint64 { return r.reaped.Load() }

// Close ends the reaping. Zombies that are still in their grace stay.
func (r *Reaper) Close() error {
	signal.Stop(r.ended)
	close(r.stop)
	<-r.done
	if r.changed && !r.subreaper {
		return os.NewSyscallError("prctl", unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0))
	}
	return nil
}

// run looks when a signal reports the end of a child, and when the grace of a zombie is over.
func (r *Reaper) run() {
	defer close(r.done)
	timer := time.NewTimer(0) // for children that ended before
	defer timer.Stop()
	failures := 0 // in a row
	for {
		select {
		case <-r.stop:
			return
		case <-r.ended:
		case <-timer.C:
		}
		next, err := r.look()
		switch {
		case err != nil: // most likely descriptors are short; without all facts nothing is reaped
			if failures++; failures == 1 {
				r.log.Error("cannot find out which children have ended, trying again", "err", err)
			}
			next = time.Now().Add(r.core.grace)
		case failures > 0:
			r.log.Info("can find out again which children have ended", "failures", failures)
			failures = 0
		}
		if r.few && !StrangersLeft() {
			signal.Stop(r.ended)
			return
		}
		if !next.IsZero() {
			timer.Reset(time.Until(next))
		}
	}
}

// look reaps the zombies whose grace is over and returns when to look again; zero if no zombie
// waits.
func (r *Reaper) look() (next time.Time, err error) {
	zombies, err := peek()
	if err != nil {
		return next, err
	}
	if r.few {
		zombies = slices.DeleteFunc(zombies, func(z Zombie) bool { _, is := strangersLeft.Load(z.PID); return !is })
	}
	ripe, next := r.core.step(time.Now(), zombies)
	if len(ripe) == 0 {
		return next, nil
	}
	held, err := heldByPidfd()
	if err != nil {
		return next, err
	}
	for _, z := range ripe {
		if !held[z.PID] {
			r.reap(z)
			strangersLeft.Delete(z.PID)
		}
	}
	return next, nil
}

// reap reaps one orphan, by a pidfd: if another part of the program reaps it first, a new process
// with its number is safe.
func (r *Reaper) reap(z Zombie) {
	fd, err := unix.PidfdOpen(z.PID, 0)
	if errors.Is(err, unix.ESRCH) {
		return // it is gone
	}
	by, id := unix.P_PIDFD, fd
	if err != nil { // a seccomp profile may have refused it: use the number
		by, id = unix.P_PID, z.PID
	} else {
		defer unix.Close(fd)
	}
	if state, start, name, _ := stat(z.PID); state == 'Z' && start == z.Start {
		if e, ended := reapBy(by, id, 0); ended && e.Lost == nil {
			r.reaped.Add(1)
			r.log.Debug("reaped a process that was left behind", "pid", z.PID, "command", name, "code", e.Code, "signal", int(e.Signal))
		}
	}
}

// peek returns the children of this program that are zombies, without touching them.
func peek() ([]Zombie, error) {
	var info siginfo
	_, _, errno := unix.Syscall6(unix.SYS_WAITID, unix.P_ALL, 0, uintptr(unsafe.Pointer(&info)),
		unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, 0, 0)
	if errno != 0 || info.pid() == 0 {
		return nil, nil // no children, no ended child, or interrupted by the signal of one
	}
	// waitid shows only the first zombie while it stays one. Look for the others in /proc.
	kids, err := children()
	if err != nil {
		return nil, err
	}
	var zombies []Zombie
	for _, pid := range kids {
		state, start, _, err := stat(pid)
		if err != nil {
			return nil, err
		}
		if state == 'Z' {
			zombies = append(zombies, Zombie{pid, start})
		}
	}
	return zombies, nil
}

// children returns the numbers of this program's children.
func children() ([]int, error) {
	var kids []int
	tasks, err := filepath.Glob("/proc/self/task/[0-9]*/children")
	if err != nil || len(tasks) == 0 {
		return childrenByParent()
	}
	for _, task := range tasks {
		b, err := os.ReadFile(task)
		if gone(err) {
			continue // the thread has ended; another thread has its children now
		}
		if err != nil {
			return nil, err
		}
		for f := range strings.FieldsSeq(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				kids = append(kids, pid)
			}
		}
	}
	return kids, nil
}

// childrenByParent is children for a kernel without CONFIG_PROC_CHILDREN.
func childrenByParent() ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var kids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		f, _, err := statFields("/proc/" + e.Name())
		if err != nil {
			return nil, err
		}
		if len(f) > 1 && f[1] == strconv.Itoa(os.Getpid()) {
			kids = append(kids, pid)
		}
	}
	return kids, nil
}

// stat returns the state of a process, its start time and its name; state 0 if there is no such
// process.
func stat(pid int) (state byte, start uint64, name string, err error) {
	const startTime = 19 // field 22 of proc_pid_stat(5), counted from state on
	f, name, err := statFields(fmt.Sprintf("/proc/%d", pid))
	if len(f) <= startTime {
		return 0, 0, "", err
	}
	start, _ = strconv.ParseUint(f[startTime], 10, 64)
	return f[0][0], start, name, nil
}

// statFields returns the fields of a process's or thread's stat after its name, and the name, which
// may hold anything; no fields if there is none. dir is its directory in /proc.
func statFields(dir string) (fields []string, name string, err error) {
	b, err := os.ReadFile(dir + "/stat")
	if gone(err) {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return nil, "", nil
	}
	return strings.Fields(string(b[end+1:])), string(b[open+1 : end]), nil
}

// gone reports whether err, of a file in /proc, means that its process has ended or that its
// descriptor was closed.
func gone(err error) bool { return errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) }

// heldByPidfd returns the processes that this program has a pidfd of. On an error the result may be
// incomplete.
func heldByPidfd() (map[int]bool, error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return nil, err
	}
	held := map[int]bool{}
	for _, e := range entries {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && !strings.Contains(to, "pidfd") {
			continue
		}
		pid := 0
		if err == nil {
			pid, err = pidOf(e.Name())
		}
		if gone(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if pid > 0 {
			held[pid] = true
		}
	}
	return held, nil
}

// pidOf returns the process that a pidfd of this program is of; -1 if that is reaped, 0 if fd is no
// pidfd.
func pidOf(fd string) (int, error) {
	info, err := os.ReadFile("/proc/self/fdinfo/" + fd)
	for line := range strings.Lines(string(info)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, err
}

// strangersLeft has the numbers of the children that an image after an exec found in its init: what
// the image before had started, by this package, os/exec or otherwise. No code waits for them any
// more, but for those that [Restore] takes out.
var strangersLeft sync.Map

func init() {
	if image.Replaced() {
		pids, _ := children() // without /proc they stay zombies
		for _, pid := range pids {
			strangersLeft.Store(pid, true)
		}
	}
}

// StrangersLeft reports whether there are children that the image before this one left and that
// were neither restored nor reaped: a [Reaper] is needed.
func StrangersLeft() bool {
	for range strangersLeft.Range {
		return true
	}
	return false
}
