//go:build linux

package coppice_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

const resourcesVar = "COPPICE_TEST_RESOURCES"

func init() {
	trees["groups"] = func() coppice.Config {
		var r coppice.Resources
		_ = json.Unmarshal([]byte(os.Getenv(resourcesVar)), &r)
		cfg := coppice.Config{OrphanDrain: 100 * time.Millisecond, Children: []coppice.ChildSpec{
			coppice.Process{Name: "program", Command: []string{"sleep", "3600"}, Environment: coppice.Environment{Resources: r}},
			coppice.Pool{Name: "web", Size: 1, Environment: coppice.Environment{Resources: r, Sandbox: coppice.Sandbox{NoNewPrivileges: true}}, Worker: leaveBehind},
		}}
		cfg.Hooks.Started = func(*coppice.Runtime) { fmt.Println("at home") }
		return cfg
	}
}

// leaveBehind is a worker that starts a process which leaves its group and its session. It does
// what COPPICE_TEST_ATTACK says.
func leaveBehind(ctx context.Context, w *coppice.Worker) error {
	stray := exec.Command("sleep", "3600")
	stray.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := stray.Start(); err != nil {
		return err
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return err
	}
	fmt.Printf("worker %d, stray %d, group %q, procs %q, memory %q\n", os.Getpid(), stray.Process.Pid, b, os.Getenv("GOMAXPROCS"), os.Getenv("GOMEMLIMIT"))
	if err := w.Ready(); err != nil {
		return err
	}
	switch os.Getenv("COPPICE_TEST_ATTACK") {
	case "memory":
		var all [][]byte
		for {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			all = append(all, b)
			if len(all) > 1<<10 { // more than any limit here
				return fmt.Errorf("%d MiB", len(all))
			}
		}
	case "tasks":
		for n := range 1 << 10 {
			if err := exec.Command("sleep", "3600").Start(); err != nil {
				fmt.Printf("after %d: %v\n", n, err)
				break
			}
		}
	case "cpu":
		for ctx.Err() == nil {
		}
	}
	<-ctx.Done()
	return nil
}

// testGroup makes a cgroup, below that of the test, that hands down the controllers. It is killed
// and removed at the end.
func testGroup(t *testing.T, controllers ...string) (dir string) {
	t.Helper()
	own := ""
	for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if _, err := os.Stat(mount + "/cgroup.controllers"); err == nil {
			own = filepath.Join(mount, groupOf(t, os.Getpid()))
		}
	}
	if own == "" {
		t.Skip("no cgroup of version 2 is mounted")
	}
	for _, c := range controllers {
		if b, err := os.ReadFile(own + "/cgroup.subtree_control"); err != nil || !slices.Contains(strings.Fields(string(b)), c) {
			if err := os.WriteFile(own+"/cgroup.subtree_control", []byte("+"+c), 0); err != nil {
				t.Skipf("the controller %s is not there for groups below %s: %v", c, own, err)
			}
			t.Cleanup(func() { _ = os.WriteFile(own+"/cgroup.subtree_control", []byte("-"+c), 0) })
		}
	}
	dir, err := os.MkdirTemp(own, "coppice-test-") //nolint:usetesting // a cgroup, not a directory for files
	if err != nil {
		t.Skip("no cgroup can be made: ", err)
	}
	t.Cleanup(func() {
		_ = os.WriteFile(dir+"/cgroup.kill", []byte("1"), 0)
		removeGroup(t, dir)
	})
	return dir
}

// removeGroup waits until no process is in a cgroup and those below it, and removes them.
func removeGroup(t *testing.T, dir string) {
	t.Helper()
	runtimetest.Eventually(t, "the cgroup to be empty", func() bool {
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				defer os.Remove(path) // those within are removed first, at the latest with the next try
			}
			return nil
		})
		_, err := os.Stat(dir)
		return os.IsNotExist(err)
	})
}

func groupOf(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		return err.Error()
	}
	_, path, _ := strings.Cut("\n"+string(b), "\n0::")
	path, _, _ = strings.Cut(path, "\n")
	return path
}

// startInGroup starts the tree in a cgroup, and waits for what its worker prints.
func startInGroup(t *testing.T, dir string, r coppice.Resources, env ...string) (p *runtimetest.Program, worker, stray int) {
	t.Helper()
	p = runGroups(t, dir, "", r, env...)
	said := p.Await(`worker (\d+), stray (\d+), group`)
	worker, _ = strconv.Atoi(said[1])
	stray, _ = strconv.Atoi(said[2])
	p.Await("at home")
	return p, worker, stray
}

// runGroups starts the tree in a cgroup, after a command of the shell.
func runGroups(t *testing.T, dir, first string, r coppice.Resources, env ...string) *runtimetest.Program {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	limits, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(t.TempDir(), "start")
	text := fmt.Sprintf("#!/bin/sh\necho $$ > %s/cgroup.procs && %s exec %s\n", dir, first, self)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return runtimetest.StartAt(t, script, append(env, treeVar+"=groups", resourcesVar+"="+string(limits), "COPPICE_CONTROL=off"))
}

// groupsIn returns the groups of programs below a directory.
func groupsIn(t *testing.T, dir string) (groups []string) {
	t.Helper()
	found, err := filepath.Glob(dir + "/coppice-*/*#*")
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range found {
		groups = append(groups, strings.TrimPrefix(g, dir+"/"))
	}
	return groups
}

// TestGroups: each process is born in a group of its own, and the master has left the way free.
// What a worker that was killed has left behind is killed, wherever it is, and the group is
// removed; so it is at the end of the tree. The tree shows what a group uses.
func TestGroups(t *testing.T) {
	dir := testGroup(t)
	p, worker, stray := startInGroup(t, dir, coppice.Resources{Accounting: true})
	own := fmt.Sprintf("coppice-%d", p.PID())
	path := groupOf(t, worker)
	if want := filepath.Base(dir) + "/" + own + "/web-0#"; !strings.Contains(path, want) || groupOf(t, stray) != path {
		t.Errorf("the worker is in %s, what it has started in %s, want %s", path, groupOf(t, stray), want)
	}
	if at := groupOf(t, p.PID()); filepath.Base(at) != "coppice-master" {
		t.Errorf("the master is in %s", at)
	}
	if got := groupsIn(t, dir); len(got) != 2 || !strings.HasPrefix(got[0], own+"/program#1") {
		t.Errorf("groups %q", got)
	}
	p.Signal(syscall.SIGUSR1)
	p.Await(`web/0 .*worker pid \d+ .*\(.*CPU \d`)

	before := len(p.Lines())
	if err := syscall.Kill(worker, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "another worker in another group, and nothing of the first", func() bool {
		groups := groupsIn(t, dir)
		return len(groups) == 2 && groups[1] != filepath.Join(own, filepath.Base(path)) && !runtimetest.Alive(stray) &&
			slices.ContainsFunc(p.Lines()[before:], func(l string) bool { return strings.Contains(l, "worker ") })
	})
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if left := groupsIn(t, dir); len(left) != 0 {
		t.Errorf("left: %q", left)
	}
}

// TestGroupsLeft: the next master removes the groups of one that was killed, with what still runs
// in them, and no other.
func TestGroupsLeft(t *testing.T) {
	dir := testGroup(t)
	p, _, stray := startInGroup(t, dir, coppice.Resources{Accounting: true})
	other := dir + "/coppice-other"
	if err := os.Mkdir(other, 0o755); err != nil {
		t.Fatal(err)
	}
	stranger := exec.Command("sleep", "3600")
	stranger.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, Pdeathsig: syscall.SIGKILL}
	f, err := os.Open(other)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stranger.SysProcAttr.CgroupFD = int(f.Fd())
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Process.Kill(); _ = stranger.Wait() }()
	p.Signal(syscall.SIGKILL)
	p.Wait()
	if !runtimetest.Alive(stray) {
		t.Fatal("nothing was left")
	}
	next, _, _ := startInGroup(t, dir, coppice.Resources{Accounting: true})
	runtimetest.Eventually(t, "the former groups to be removed", func() bool {
		_, err := os.Stat(fmt.Sprintf("%s/coppice-%d", dir, p.PID()))
		return os.IsNotExist(err) && !runtimetest.Alive(stray)
	})
	if !runtimetest.Alive(stranger.Process.Pid) || len(groupsIn(t, dir)) != 2 {
		t.Errorf("groups %q, another's process lives: %v", groupsIn(t, dir), runtimetest.Alive(stranger.Process.Pid))
	}
	next.Signal(syscall.SIGTERM)
	next.Wait()
}

// TestGroupsOverUpgrade: an upgrade leaves the master and the program where they are; the new
// master makes groups beside theirs, and removes all at the end.
func TestGroupsOverUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("slow, and the race detector has nothing to see in it")
	}
	dir := testGroup(t)
	t.Setenv(resourcesVar, `{"Accounting": true}`)
	enter := func(dir string) {
		if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(os.Getpid())), 0); err != nil {
			t.Fatal(err)
		}
	}
	enter(dir) // for the program, which is born here
	u := func() *upgraded { defer enter(filepath.Dir(dir)); return startUpgradedTree(t, "groups", "") }()
	before := groupsIn(t, dir)
	u.upgrade("", "INFO upgraded")
	runtimetest.Eventually(t, "a new worker in another group, and the program in the same", func() bool {
		now := groupsIn(t, dir)
		return len(now) == 2 && now[0] == before[0] && now[1] != before[1]
	})
	if at := groupOf(t, u.PID()); !strings.HasSuffix(at, fmt.Sprintf("%s/coppice-%d/coppice-master", filepath.Base(dir), u.PID())) {
		t.Errorf("the master is in %s", at)
	}
	u.Signal(syscall.SIGTERM)
	if code := u.Wait(); code != 0 || len(groupsIn(t, dir)) != 0 {
		t.Errorf("exit code %d, left %q", code, groupsIn(t, dir))
	}
}

// TestGroupsRefused: what the system lacks for a field fails the start, and is said.
func TestGroupsRefused(t *testing.T) {
	limit := coppice.Resources{MemoryMax: 64 << 20}
	for _, tt := range []struct {
		name, first, want string
		r                 coppice.Resources
	}{
		{"a controller", "", `Environment.Resources.MemoryMax 67108864: the controller memory is not there in .*, which has none`, limit},
		{"the right to write", "unshare -m sh -c 'mount --bind $(dirname %s) $(dirname %s) && mount -o remount,bind,ro $(dirname %s) && exec %s'; exit;", `Environment.Resources.Accounting: mkdir .*: read-only file system: cgroups are mounted read-only, as in most containers`, coppice.Resources{Accounting: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := testGroup(t)
			inner := dir + "/inner" // to which nothing is handed down
			if err := os.Mkdir(inner, 0o755); err != nil {
				t.Fatal(err)
			}
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			first := tt.first
			if first != "" {
				if _, err := exec.LookPath("unshare"); err != nil || os.Geteuid() != 0 {
					t.Skip("it takes unshare(1), and root")
				}
				first = fmt.Sprintf(first, dir, dir, dir, self)
			}
			p := runGroups(t, inner, first, tt.r)
			p.Await(tt.want)
			if code := p.Wait(); code == 0 {
				t.Error("it ended well")
			}
		})
	}
}

// TestResourceLimits: the kernel keeps the limits. What runs out of memory is killed with all that
// it has started, and the verdict is certain.
func TestResourceLimits(t *testing.T) {
	limits := coppice.Resources{MemoryMax: 96 << 20, MemoryHigh: 90 << 20, CPUQuota: 50, CPUWeight: 20, TasksMax: 64}
	file := func(p *runtimetest.Program, worker int, name string) string {
		b, _ := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID()), "root/sys/fs/cgroup", groupOf(t, worker), name))
		if len(b) == 0 {
			b, _ = os.ReadFile(filepath.Join("/sys/fs/cgroup/unified", groupOf(t, worker), name))
		}
		return strings.TrimSpace(string(b))
	}
	for _, tt := range []struct {
		attack string
		r      coppice.Resources
		check  func(p *runtimetest.Program, worker, stray int)
	}{
		{"nothing", limits, func(p *runtimetest.Program, worker, _ int) {
			for name, want := range map[string]string{
				"memory.max": "100663296", "memory.high": "94371840", "memory.oom.group": "1", "cpu.max": "50000 100000", "cpu.weight": "20", "pids.max": "64",
			} {
				if got := file(p, worker, name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			p.Signal(syscall.SIGUSR1)
			p.Await(`web/0 .*\(memory [\d.]+/96.0 MiB, peak [\d.]+; CPU [\d.]+ s of 50%; tasks \d+/64`)
		}},
		{"memory", coppice.Resources{MemoryMax: 96 << 20}, func(p *runtimetest.Program, _, stray int) {
			p.Await(`name=web/0.*killed\): out of memory`)
			runtimetest.Eventually(t, "what it has started to be killed", func() bool { return !runtimetest.Alive(stray) })
		}},
		{"tasks", coppice.Resources{TasksMax: 64}, func(p *runtimetest.Program, _, _ int) {
			p.Await(`after \d+: .*resource temporarily unavailable`)
		}},
		{"cpu", coppice.Resources{CPUQuota: 20}, func(p *runtimetest.Program, worker, _ int) {
			runtimetest.Eventually(t, "the quota to count", func() bool {
				_, after, _ := strings.Cut(file(p, worker, "cpu.stat"), "throttled_usec ")
				n, _, _ := strings.Cut(after, "\n")
				return n != "" && n != "0"
			})
		}},
	} {
		t.Run(tt.attack, func(t *testing.T) {
			dir := testGroup(t, "memory", "cpu", "pids")
			p, worker, stray := startInGroup(t, dir, tt.r, "COPPICE_TEST_ATTACK="+tt.attack)
			tt.check(p, worker, stray)
			p.Signal(syscall.SIGTERM)
			p.Wait()
		})
	}
}

// TestMemoryShared: where a cgroup limits the memory, of version 1 or 2, workers have their share
// of it, and the log says so; programs have none, and nobody has with GOMEMLIMIT=off.
func TestMemoryShared(t *testing.T) {
	const limit = 500 << 20
	dir, file := "", "memory.limit_in_bytes"
	if b, err := os.ReadFile("/proc/self/cgroup"); err == nil {
		if m := regexp.MustCompile(`(?m)^\d+:memory:(.*)$`).FindSubmatch(b); m != nil {
			if dir, err = os.MkdirTemp("/sys/fs/cgroup/memory"+string(m[1]), "coppice-test-"); err != nil { //nolint:usetesting // a cgroup
				t.Skip("no cgroup can be made: ", err)
			}
			t.Cleanup(func() { // version 1 has no cgroup.kill
				b, _ := os.ReadFile(dir + "/cgroup.procs")
				for _, field := range strings.Fields(string(b)) { // what workers left behind
					if pid, _ := strconv.Atoi(field); pid > 1 {
						_ = syscall.Kill(pid, syscall.SIGKILL)
					}
				}
				removeGroup(t, dir)
			})
		}
	}
	if dir == "" {
		dir, file = testGroup(t, "memory"), "memory.max"
	}
	if err := os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0); err != nil {
		t.Skip("no limit can be set: ", err)
	}
	for first, want := range map[string]string{"unset GOMEMLIMIT;": strconv.Itoa(limit/10*9) + "B", "GOMEMLIMIT=off": "off"} {
		p := runGroups(t, dir, first, coppice.Resources{})
		p.Await("at home")
		if got := p.Await(`worker \d+, .* memory "(.*)"$`)[1]; got != want {
			t.Errorf("%s: the worker has %q, want %q", first, got, want)
		}
		programs := 0
		for _, pid := range runtimetest.Children(t, p.PID()) {
			args, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			if !strings.HasPrefix(string(args), "sleep") {
				continue
			}
			programs++
			vars, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
			if given := strings.Contains(string(vars), "GOMEMLIMIT="); err != nil || given != (want == "off") {
				t.Errorf("%s: the program has a limit: %v, %v", first, given, err)
			}
		}
		p.Signal(syscall.SIGTERM)
		p.Wait()
		said := strings.Contains(strings.Join(p.Lines(), "\n"), "each worker gets its share")
		if said != (want != "off") || programs == 0 {
			t.Errorf("%s: the log says that it is shared: %v; %d programs", first, said, programs)
		}
	}
}
