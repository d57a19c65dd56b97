//go:build linux

package coppice_test

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"golang.org/x/sys/unix"
)

var upgradeFaults = flag.Bool("upgrade-faults", false, "TestUpgradeFaults: every fault at every step, in place of some; -v prints the table")

// upgradeSteps are the steps of an upgrade. A fault comes before one, and so after the one before.
var upgradeSteps = []string{"check", "wait", "stop", "suspend", "exec", "trial", "roll", "serve"}

func init() {
	coppice.BeforeUpgradeStep(func(step string) {
		path := filepath.Join(os.Getenv(upgradeVar), "fault") // has the step, the fault, and its number
		b, err := os.ReadFile(path)
		if err != nil {
			return
		}
		var at, fault string
		var n int
		if _, err := fmt.Sscan(string(b), &at, &fault, &n); err != nil || at != step || os.Remove(path) != nil {
			return
		}
		switch fault {
		case "no_file_larger_than": // as a full disk, for the state is a file
			err = unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(n), Max: unix.RLIM_INFINITY})
		case "no_more_descriptors":
			var l unix.Rlimit
			if err = unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err == nil {
				open, _ := os.ReadDir("/proc/self/fd")
				l.Cur = uint64(len(open))
				err = unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
			}
		case "kill":
			err = syscall.Kill(n, syscall.SIGKILL)
		default:
			err = syscall.Kill(os.Getpid(), unix.SignalNum(fault))
		}
		fmt.Println("before", step, fault, n, err)
	})
}

// child returns a child of the master whose title has a word.
func (u *upgraded) child(word string) (found int) {
	u.t.Helper()
	runtimetest.Eventually(u.t, word, func() bool {
		for _, pid := range runtimetest.Children(u.t, u.PID()) {
			title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if strings.Contains(string(title), word) {
				found = pid
			}
		}
		return found > 0
	})
	return found
}

// fault upgrades with a fault before a step, and returns how that ended, and what clients with
// fresh and with kept connections saw.
func (u *upgraded) fault(step, fault string) (end string, counts [2]runtimetest.Counts) {
	t, what, n := u.t, fault, 0
	t.Helper()
	if fault == "worker" || fault == "listener" {
		what, n = "kill", u.child(map[string]string{"worker": "web", "listener": "listener"}[fault])
	}
	kids := runtimetest.Children(t, u.PID())
	if err := os.WriteFile(filepath.Join(u.dir, "fault"), fmt.Append(nil, step, " ", what, " ", n), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var clients sync.WaitGroup
	for i := range counts {
		clients.Go(func() {
			counts[i] = runtimetest.Load{URL: "http://" + u.addr + "/", InFlight: 2, KeepAlive: i == 1}.Run(ctx)
		})
	}
	u.done = len(u.Lines())
	u.Signal(syscall.SIGUSR2)
	runtimetest.Eventually(t, fault+" before "+step, func() bool { return u.printed("before "+step) > 0 })
	if fault == "SIGTERM" || fault == "SIGINT" {
		if code := u.Wait(); code != 0 {
			t.Errorf("%s before %s: it exited with %d", fault, step, code)
		}
		runtimetest.Eventually(t, "the children to be gone", func() bool { return !slices.ContainsFunc(kids, runtimetest.Alive) })
		stop()
		clients.Wait()
		return "stopped", counts
	}
	ends := 1
	if fault == "SIGUSR2" && step != "exec" { // too late: the state is written
		ends = 2 // that upgrade comes too
	}
	lift := func() {
		for _, res := range []int{unix.RLIMIT_FSIZE, unix.RLIMIT_NOFILE} {
			var l unix.Rlimit
			err := unix.Prlimit(u.PID(), res, nil, &l)
			if l.Cur = l.Max; err == nil {
				err = unix.Prlimit(u.PID(), res, &l, nil)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	runtimetest.Eventually(t, "the end of the upgrade", func() bool {
		if u.printed("short of what a start takes") > 0 { // it waits for descriptors
			lift()
		}
		return u.printed("INFO upgraded")+u.printed("upgrade failed") >= ends
	})
	lift()
	end = "upgraded"
	for _, l := range u.Lines()[u.done:] {
		if _, why, failed := strings.Cut(l, `err="coppice: upgrade: `); failed && strings.Contains(l, "upgrade failed") {
			end = "failed: " + why
		}
	}
	u.sevenChildren()
	if err := u.getLocal(); err != nil {
		t.Error(err)
	}
	stop()
	clients.Wait()
	for _, c := range counts {
		if c.OK == 0 || c.Refused+c.Hung+c.Other > 0 || c.Cut > 0 && what != "kill" {
			t.Errorf("%s before %s: %v", fault, step, c)
		}
	}
	return end, counts
}

// TestUpgradeFaults: faults before and after steps of an upgrade. Nothing hangs, no client is
// refused, nobody is orphaned, and what a signal asks for is done.
func TestUpgradeFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("TestUpgrade goes the same way")
	}
	some := map[string]string{
		"worker": "exec", "listener": "stop", "SIGUSR2": "check", "no_file_larger_than": "suspend", "no_more_descriptors": "exec", "SIGTERM": "exec",
	}
	var u *upgraded
	var fds int
	rows := "| before | " + strings.Join(upgradeSteps, " | ") + " | clients |\n|" + strings.Repeat(" --- |", len(upgradeSteps)+2)
	for _, fault := range []string{"worker", "listener", "SIGHUP", "SIGUSR1", "SIGUSR2", "no_file_larger_than", "no_more_descriptors", "SIGINT", "SIGTERM"} {
		rows += "\n| " + fault + " |"
		var sums [2]runtimetest.Counts
		for _, step := range upgradeSteps {
			if !*upgradeFaults && some[fault] != step {
				continue
			}
			if u == nil {
				u = startUpgraded(t, "")
				u.upgrade("", "INFO upgraded")
				u.sevenChildren()
				fds = len(runtimetest.Descriptors(t, u.PID()))
			}
			end, counts := u.fault(step, fault)
			t.Log(fault, "before", step, end, counts)
			if rows += " " + end + " |"; end == "stopped" {
				u = nil
			} else {
				runtimetest.Eventually(t, "descriptors as before", func() bool { return len(runtimetest.Descriptors(t, u.PID())) <= fds })
			}
			if what, _, _ := strings.Cut(fault, "_"); what == "no" && u != nil && (step == "exec" || step == "trial") {
				u.Signal(syscall.SIGTERM) // its children keep the limit that it was executed with
				if code := u.Wait(); code != 0 {
					t.Errorf("it exited with %d", code)
				}
				u = nil
			}
			for i, c := range counts {
				sums[i].OK, sums[i].Refused, sums[i].Cut, sums[i].Hung = sums[i].OK+c.OK, sums[i].Refused+c.Refused, sums[i].Cut+c.Cut, sums[i].Hung+c.Hung
			}
		}
		for _, c := range sums {
			rows += fmt.Sprintf(" %d answered, %d refused, %d cut, %d hung;", c.OK, c.Refused, c.Cut, c.Hung)
		}
	}
	t.Log("\n" + rows)
}
