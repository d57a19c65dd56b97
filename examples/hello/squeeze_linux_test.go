package main

import (
	"context"
	"flag"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

var squeezedFor = flag.Duration("squeezed", 0, "how long each part of TestSqueezed lasts; 0 = 3s")

// TestSqueezed: processes are killed at random while the master's standard error has no
// reader, or while it and they are short of descriptors and processes now and then. No client
// is refused or hangs, what is cut was in the hands of a process that was killed, and the
// master is no bigger for it.
func TestSqueezed(t *testing.T) {
	lasts := *squeezedFor
	if lasts == 0 {
		lasts = 3 * time.Second
	}
	for _, tt := range []struct {
		name         string
		stuck, short bool
	}{
		{name: "stderr hangs", stuck: true},
		{name: "shortages", short: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := startStuck(t, tt.stuck)
			group := pidsGroup(t, h.pid)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			loads := []runtimetest.Load{{URL: h.url, InFlight: 8, Timeout: runtimetest.Patience}, {URL: h.url, InFlight: 8, KeepAlive: true, Timeout: runtimetest.Patience}}
			counts := make(chan runtimetest.Counts, len(loads))
			for _, l := range loads {
				go func() { counts <- l.Run(ctx) }() // ends with ctx
			}
			rnd := rand.New(rand.NewPCG(7, 8))
			kills, most := 0, int64(0)
			end := time.After(lasts)
			for tick, over := time.NewTicker(100*time.Millisecond), false; !over; {
				select {
				case <-tick.C:
				case <-end:
					over = true
					continue
				}
				if procs := h.processes(); len(procs) > 1 && rnd.IntN(2) == 0 {
					if syscall.Kill(procs[rnd.IntN(len(procs))].PID, syscall.SIGKILL) == nil {
						kills++
					}
				} else if tt.short {
					squeeze(t, rnd, h.pid, group)
				}
				most = max(most, runtimetest.Resident(t, h.pid))
			}
			cancel()
			var all runtimetest.Counts
			for range loads {
				c := <-counts
				t.Log(c)
				all.OK, all.Refused, all.Hung, all.Other, all.Cut = all.OK+c.OK, all.Refused+c.Refused, all.Hung+c.Hung, all.Other+c.Other, all.Cut+c.Cut
			}
			t.Logf("%d killed; the master had at most %d MiB", kills, most>>20)
			if all.OK == 0 || all.Refused+all.Hung+all.Other != 0 || all.Cut > int64(kills*2*8) {
				t.Errorf("%v, by %d kills", all, kills)
			}
			if most > 128<<20 {
				t.Errorf("the master had %d MiB", most>>20)
			}
			runtimetest.Eventually(t, "every process is there", func() bool { return len(h.processes()) == 4 })
			h.terminate()
		})
	}
}

// TestTooManyProcesses: the cgroup allows no further thread when a worker dies. Those that
// live answer, the master and the listener process too, and once it does the worker is replaced.
func TestTooManyProcesses(t *testing.T) {
	h := start(t, "-workers", "3")
	group := pidsGroup(t, h.PID())
	if group == "" {
		t.Skip("it takes root, and a cgroup that bounds processes")
	}
	for _, pid := range runtimetest.Children(t, h.PID()) { // those that it starts from now on are in it
		if err := os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bound := func(s string) {
		if err := os.WriteFile(filepath.Join(group, "pids.max"), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { bound("max") })
	dead := h.root().PID
	bound("1") // there are more, and they stay
	signal(t, dead, syscall.SIGKILL)
	h.Await(`level=ERROR msg="the master is short of what a start takes.* name=web/`)
	for range 100 {
		if pid := h.root().PID; pid == dead {
			t.Fatalf("process %d answers, which is dead", pid)
		}
	}
	bound("max")
	h.Await(`level=WARN msg="the shortage is over`)
	pids := map[int]bool{}
	runtimetest.Eventually(t, "three workers answer", func() bool {
		pids[h.root().PID] = true
		return len(pids) == 3
	})
}

// outsider is a hello whose standard error need not be read.
type outsider struct {
	*hello
	pid       int
	terminate func() // and waits for exit code 0
}

func startStuck(t *testing.T, stuck bool) *outsider {
	t.Helper()
	args := []string{"-workers", "3", "-restarts", "1000000"}
	if !stuck {
		h := start(t, append(args, "-quiet")...)
		return &outsider{h, h.PID(), func() {
			h.Signal(syscall.SIGTERM)
			if code := h.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		}}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0") // for a port that is free
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	for b := make([]byte, 4096); err == nil; {
		if err = w.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err == nil {
			_, err = w.Write(b)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, append(args, "-addr", addr)...)
	cmd.Env = append(os.Environ(), "COPPICE_TEST_PROGRAM=1")
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // ends with the program
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	o := &outsider{&hello{nil, t, "http://" + addr}, cmd.Process.Pid, func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(runtimetest.Patience):
			t.Errorf("it still runs %v after SIGTERM", runtimetest.Patience)
		}
	}}
	runtimetest.Eventually(t, "an answer", func() bool {
		_, err := o.get("/")
		return err == nil
	})
	return o
}

// squeeze takes descriptors from a process of the tree for a moment, or the tree's leave to
// have more processes, if group is the cgroup for that.
func squeeze(t *testing.T, rnd *rand.Rand, master int, group string) {
	t.Helper()
	pause := func() {
		timer := time.NewTimer(time.Duration(rnd.IntN(300)) * time.Millisecond)
		<-timer.C
	}
	if group != "" && rnd.IntN(3) == 0 {
		set := func(s string) {
			if err := os.WriteFile(filepath.Join(group, "pids.max"), []byte(s), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		set("1")
		pause()
		set("max")
		return
	}
	pids := append(runtimetest.Children(t, master), master)
	pid := pids[rnd.IntN(len(pids))]
	var limit unix.Rlimit
	none := unix.Rlimit{Cur: uint64(3 + rnd.IntN(60)), Max: 0}
	if unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit) != nil {
		return // it has ended
	}
	none.Max = limit.Max
	if unix.Prlimit(pid, unix.RLIMIT_NOFILE, &none, nil) != nil {
		return
	}
	pause()
	_ = unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil) // it may have ended
}

// pidsGroup puts a process in a cgroup that bounds processes, and returns that; "" where no
// such can be made.
func pidsGroup(t *testing.T, pid int) string {
	t.Helper()
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/pids"} {
		dir := filepath.Join(mount, "coppice-test-"+strconv.Itoa(pid))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { _ = os.Remove(dir) })
		if _, err := os.Stat(filepath.Join(dir, "pids.max")); err != nil {
			continue
		}
		if os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o600) == nil {
			return dir
		}
	}
	t.Log("no cgroup can be made here: processes are not made short")
	return ""
}
