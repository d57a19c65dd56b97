//go:build linux

package coppice_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// releaseMark stands before the words at the end of a program's file that say how its release
// differs from others.
const releaseMark = "\nrelease:"

// release reports whether the program is of a release with that word.
func release(word string) bool { return slices.Contains(releaseWords(), word) }

var releaseWords = sync.OnceValue(func() []string {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil
	}
	defer f.Close()
	end := make([]byte, 64)
	if st, err := f.Stat(); err == nil {
		_, _ = f.ReadAt(end, max(0, st.Size()-int64(len(end))))
	}
	_, words, _ := strings.Cut(string(end), releaseMark)
	return strings.Fields(words)
})

// install puts a release of this program at a path, as a deployment does.
func install(t *testing.T, path, words string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+".next", append(b, releaseMark+words...), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".next", path); err != nil {
		t.Fatal(err)
	}
}

// upgradeVar is the variable with the directory of a program that is upgraded.
const upgradeVar = "COPPICE_TEST_UPGRADE"

func init() { trees["upgraded"] = upgradedTree }

// upgradedTree is the tree of the program that is upgraded.
func upgradedTree() coppice.Config {
	if release("panics") {
		panic("this release panics")
	}
	dir := os.Getenv(upgradeVar)
	web := coppice.Pool{Name: "web", Size: 2, Spares: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
		if w.Generation() > 1 && release("worse") {
			return errors.New("this release cannot serve")
		}
		ln, err := w.Listener(ctx, "http")
		if err != nil {
			return err
		}
		fmt.Printf("serving by %s of generation %d as %d\n", w.Name(), w.Generation(), os.Getpid())
		return w.Serve(ctx, ln, name(w))
	}}
	if release("larger") {
		web.Size = 4
	}
	if release("waits") {
		web.Intensity = supervisor.Intensity{Max: 10, Period: time.Hour}
		web.Backoff = supervisor.Backoff{Initial: time.Hour, NoJitter: true}
	}
	sleep := coppice.Process{Name: "sleep", Command: []string{"sleep", "1h"}}
	cfg := coppice.Config{
		Intensity: supervisor.Intensity{Max: 10, Period: time.Second},
		Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0"},
			coppice.ListenerSpec{Name: "local", Network: "unix", Address: filepath.Join(dir, "sock")},
			web,
			coppice.Func{Name: "once", Restart: supervisor.Temporary, Run: func(context.Context) error { fmt.Println("once in a life"); return nil }},
			coppice.Func{Name: "clock", Run: func(ctx context.Context) error {
				if release("stopped") {
					return errors.New("the clock has stopped")
				}
				fmt.Println("the clock goes")
				if release("big") { // more than execve(2) takes
					os.Setenv("COPPICE_TEST_BIG", strings.Repeat("x", 200<<10))
				}
				<-ctx.Done()
				return nil
			}},
			coppice.Func{Name: "counter", Run: func(ctx context.Context) error {
				runs := 1
				if _, state, ok := coppice.TakeOver(ctx); ok {
					runs, _ = strconv.Atoi(string(state))
				}
				fmt.Printf("run %d of the counter\n", runs)
				<-ctx.Done()
				return coppice.HandOver(ctx, 1, strconv.AppendInt(nil, int64(runs+1), 10))
			}},
		},
	}
	if release("fails") {
		cfg.Children = append(cfg.Children, coppice.Func{Name: "new", Run: func(context.Context) error { return errors.New("the new Func fails") }})
	}
	var deeper []coppice.ChildSpec
	if release("deeper") {
		deeper = append(deeper, coppice.Process{Name: "deep", Command: []string{"sleep", "1h"}})
	}
	if !release("less") {
		cfg.Children = append(cfg.Children, sleep, coppice.Supervisor{Name: "group", Children: append(deeper,
			coppice.Pool{Name: "local", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listener(ctx, "local")
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, name(w))
			}},
			coppice.Actor{Name: "keeper", New: func() actor.Actor {
				return actor.ReceiveFunc(func(c actor.Context) {
					if _, is := c.Message().(*actor.Started); is && release("unable") {
						panic("the actor of this release cannot start")
					}
				})
			}},
		)})
	}
	if release("more") {
		cfg.Children = append(cfg.Children, coppice.Pool{Name: "extra", Size: 1, Worker: idle})
	}
	if release("unruly") && !coppice.IsChild() { // the check does not see it
		cfg.Children = append(cfg.Children, web)
	}
	if release("broken") {
		cfg.Children = append(cfg.Children, coppice.Pool{Name: "broken", Size: 1, Worker: func(context.Context, *coppice.Worker) error {
			return errors.New("it cannot start")
		}})
	}
	if release("slow") {
		cfg.Load = func(ctx context.Context) ([]byte, error) {
			fmt.Println("the trial goes on")
			<-ctx.Done()
			return nil, ctx.Err()
		}
	}
	cfg.Hooks.Started = func(rt *coppice.Runtime) { fmt.Println("at", rt.Listeners()[0].Addr) }
	return cfg
}

// upgraded is a running program that can be upgraded.
type upgraded struct {
	*runtimetest.Program
	t    *testing.T
	dir  string // has the releases, a link to the current one, and the socket
	last int    // the number of the newest release
	addr string
	done int // lines seen
}

func startUpgraded(t *testing.T, words string) *upgraded {
	t.Helper()
	return startUpgradedTree(t, "upgraded", words)
}

func startUpgradedTree(t *testing.T, tree, words string) *upgraded {
	t.Helper()
	u := &upgraded{t: t, dir: t.TempDir()}
	u.deploy(words)
	u.Program = runtimetest.StartAt(t, filepath.Join(u.dir, "current", "program"), []string{treeVar + "=" + tree, upgradeVar + "=" + u.dir, "COPPICE_CONTROL=off"})
	u.addr = u.Await(`^at (.*)$`)[1]
	return u
}

// deploy leads the link to another release.
func (u *upgraded) deploy(words string) {
	u.t.Helper()
	u.put(func(path string) error { install(u.t, path, words); return nil })
}

// put leads the link to a directory in which f makes what is to be the program.
func (u *upgraded) put(f func(path string) error) {
	u.t.Helper()
	u.last++
	release, link := fmt.Sprint(u.last), filepath.Join(u.dir, "current")
	if err := os.Mkdir(filepath.Join(u.dir, release), 0o755); err != nil {
		u.t.Fatal(err)
	}
	if err := errors.Join(f(filepath.Join(u.dir, release, "program")), os.Symlink(release, link+".next"), os.Rename(link+".next", link)); err != nil {
		u.t.Fatal(err)
	}
}

// upgrade upgrades to another release, and waits for a line that matches.
func (u *upgraded) upgrade(words, want string) {
	u.t.Helper()
	u.deploy(words)
	u.begin(want)
}

// begin begins an upgrade, and waits for a line that matches.
func (u *upgraded) begin(want string) {
	u.t.Helper()
	u.done = len(u.Lines())
	u.Signal(syscall.SIGUSR2)
	runtimetest.Eventually(u.t, want, func() bool { return u.printed(want) > 0 })
}

// counted checks that the Func that hands its state over went on from it each time, and returns how
// often it did. After a trial that failed it may do so from the same state once more.
func (u *upgraded) counted() (runs int) {
	u.t.Helper()
	u.done = 0
	all, failed := u.printed(" of the counter"), u.printed("the new program cannot take over")
	for u.printed(fmt.Sprintf("run %d of the counter", runs+1)) > 0 {
		runs++
	}
	if all > runs+failed {
		u.t.Errorf("the counter ran %d times and came to %d, with %d trials that failed", all, runs, failed)
	}
	return runs
}

// sevenChildren waits until the master has seven children.
func (u *upgraded) sevenChildren() {
	u.t.Helper()
	runtimetest.Eventually(u.t, "seven children", func() bool { return len(runtimetest.Children(u.t, u.PID())) == 7 })
}

// printed returns how many lines since the upgrade began contain a text.
func (u *upgraded) printed(text string) (n int) {
	for _, l := range u.Lines()[u.done:] {
		if strings.Contains(l, text) {
			n++
		}
	}
	return n
}

// loaded runs do under load over fresh and kept connections, over TCP and the Unix socket.
func (u *upgraded) loaded(do func()) {
	u.t.Helper()
	ctx, stop := context.WithCancel(u.t.Context())
	var clients sync.WaitGroup
	var counts [2]runtimetest.Counts
	for i := range counts {
		clients.Go(func() {
			counts[i] = runtimetest.Load{URL: "http://" + u.addr + "/", InFlight: 4, KeepAlive: i == 1}.Run(ctx)
		})
	}
	do()
	stop()
	clients.Wait()
	for _, c := range counts {
		u.t.Log(c)
		if c.OK == 0 || c.OK != c.Sent() {
			u.t.Errorf("%v", c)
		}
	}
}

// getLocal asks over the Unix socket.
func (u *upgraded) getLocal() error {
	client := http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(u.dir, "sock"))
	}}}
	resp, err := client.Get("http://local/")
	if err == nil {
		resp.Body.Close()
	}
	return err
}

// TestUpgrade: the whole program is replaced under load, again and again. Nothing is refused or
// cut, the master's PID stays, as do programs that are not this one; what has ended for good stays
// so.
func TestUpgrade(t *testing.T) {
	rounds := 2
	if testing.Short() {
		rounds = 1
	}
	u := startUpgraded(t, "")
	count := func() int { return len(runtimetest.Descriptors(t, u.PID())) }
	u.loaded(func() {
		u.upgrade("", "INFO upgraded")
		u.sevenChildren() // listener, 2 web, a spare, sleep, 2 local
		fds := count()
		for range rounds {
			u.upgrade("", "INFO upgraded")
			if err := u.getLocal(); err != nil {
				t.Error(err)
			}
		}
		runtimetest.Eventually(t, "descriptors as before", func() bool { return count() <= fds })
		u.sevenChildren()
	})
	u.done = 0
	if n := u.printed("once in a life"); n != 1 {
		t.Errorf("a temporary child ran %d times", n)
	}
	if n := u.printed("the clock goes"); n != rounds+2 {
		t.Errorf("a Func ran %d times", n)
	}
	if n := u.counted(); n != rounds+2 {
		t.Errorf("the Func that hands its state over ran %d times", n)
	}
	u.Signal(syscall.SIGTERM)
	if code := u.Wait(); code != 0 {
		t.Errorf("it exited with %d", code)
	}
}

// TestUpgradeWhileWaiting: a worker that waits for its restart does not hold an upgrade up, which
// brings it the new program. What was counted of restarts goes on.
func TestUpgradeWhileWaiting(t *testing.T) {
	u := startUpgraded(t, "waits")
	kill := func(name string, generation int) {
		t.Helper()
		pid, _ := strconv.Atoi(u.Await(fmt.Sprintf(`serving by %s of generation %d as (\d+)`, name, generation))[1])
		u.done = len(u.Lines())
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		runtimetest.Eventually(t, name+" waits", func() bool { return u.printed("delay=1h0m0s") > 0 })
	}
	kill("web/1", 1)
	u.upgrade("waits", "INFO upgraded")
	u.Await(`serving by web/1 of generation 2 `)
	u.sevenChildren()
	kill("web/0", 2)
	if u.printed("left=8 max=10") != 1 {
		t.Error("the restart before the upgrade does not count")
	}
	u.upgrade("waits", "INFO upgraded")
	u.Await(`serving by web/0 of generation 3 `)
	u.sevenChildren()
}

// TestUpgradeOfTree: children that are new are started, those that are gone are stopped, pools get
// their new size.
func TestUpgradeOfTree(t *testing.T) {
	if testing.Short() {
		t.Skip("TestUpgrade goes the same way")
	}
	u := startUpgraded(t, "")
	u.loaded(func() {
		u.sevenChildren()
		u.upgrade("larger more less", "INFO upgraded")
		for _, want := range []string{"web.Size becomes 4, was 2", "extra (Pool) is new: it is started", "sleep (Process) is gone: it is stopped", "clock (Func) runs in the master: it starts anew, with what it hands over"} {
			if u.printed("upgrade: "+want) != 1 {
				t.Errorf("no %q", want)
			}
		}
		u.sevenChildren() // listener, 4 web, a spare, extra
		if u.printed("SIGABRT") > 0 {
			t.Error("the spare that was taken over did not become a worker")
		}
		if u.getLocal() == nil && u.printed("local") == 0 {
			t.Error("the pool of the Unix socket is gone, and the socket is served")
		}
		u.upgrade("", "INFO upgraded")
		u.sevenChildren()
		if err := u.getLocal(); err != nil {
			t.Error(err)
		}
	})
}

// TestUpgradeRefused: a program that cannot take over is found before anything happens, and one
// that fails later is taken back; the old one serves on.
func TestUpgradeRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("TestUpgrade goes the same way")
	}
	u := startUpgraded(t, "")
	for _, tt := range []struct{ release, want string }{
		{"panics", "this release panics"},
		{"deeper", "group/deep is new"},
		{"elsewhere", "must be started by the main goroutine"},
		{"unruly", "is the name of a sibling too"},
		{"broken", "it cannot start"},
		{"worse", "this release cannot serve"},
		{"unable", "was to be stopped, which was taken over"}, // by its supervisor: the actor cannot start
		{"fails", "new ended before the upgrade was over: error: the new Func fails"},
		{"stopped", "clock ended before the upgrade was over: error: the clock has stopped"},
	} {
		u.loaded(func() {
			u.upgrade(tt.release, "upgrade failed")
			if u.printed(tt.want) == 0 {
				t.Errorf("%s: no line with %q", tt.release, tt.want)
			}
			if tt.release == "worse" && u.printed("the old program has its children back") != 1 {
				t.Error("the way back is not in the log")
			}
		})
	}
	u.loaded(func() { u.upgrade("", "INFO upgraded") })
	if n := u.counted(); n < 9 { // there and back three times or more, perhaps one trial, and there
		t.Errorf("the Func that hands its state over came to %d", n)
	}
}

// TestUpgradeAsProcessOne: a tree whose master is process 1 of a PID namespace, as in a container,
// is upgraded as any other.
func TestUpgradeAsProcessOne(t *testing.T) {
	unshare, err := exec.LookPath("unshare")
	switch {
	case testing.Short():
		t.Skip("TestUpgrade goes the same way")
	case os.Geteuid() != 0 || err != nil:
		t.Skip("no PID namespace of its own: it takes root, and unshare(1)", err)
	}
	u := &upgraded{t: t, dir: t.TempDir()}
	u.deploy("")
	env := []string{treeVar + "=upgraded", upgradeVar + "=" + u.dir, "COPPICE_CONTROL=off"}
	u.Program = runtimetest.StartAt(t, unshare, env, "--pid", "--fork", "--kill-child", "--mount-proc", filepath.Join(u.dir, "current", "program"))
	u.addr = u.Await(`^at (.*)$`)[1]
	master := runtimetest.Children(t, u.PID())[0]
	children := len(runtimetest.Children(t, master))
	u.loaded(func() {
		for range 2 {
			u.deploy("")
			u.done = len(u.Lines())
			if err := syscall.Kill(master, syscall.SIGUSR2); err != nil {
				t.Fatal(err)
			}
			runtimetest.Eventually(t, "the upgrade", func() bool { return u.printed("INFO upgraded") > 0 })
		}
	})
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", master)); err != nil || !strings.Contains(string(b), fmt.Sprintf("\nNSpid:\t%d\t1\n", master)) {
		t.Errorf("it is not process 1 of its namespace: %v\n%s", err, b)
	}
	runtimetest.Eventually(t, "the children of before", func() bool { return len(runtimetest.Children(t, master)) == children })
	if err := syscall.Kill(master, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := u.Wait(); code != 0 {
		t.Errorf("it exited with %d", code)
	}
}

// TestUpgradeToNoProgram: what the kernel does not execute fails in the check, with the kernel's
// reason, and the old program serves on.
func TestUpgradeToNoProgram(t *testing.T) {
	if testing.Short() {
		t.Skip("TestUpgrade goes the same way")
	}
	u := startUpgraded(t, "")
	program, err := os.ReadFile(filepath.Join(u.dir, "current", "program"))
	if err != nil {
		t.Fatal(err)
	}
	file := func(b []byte, mode os.FileMode) func(string) error {
		return func(path string) error { return os.WriteFile(path, b, mode) }
	}
	other := slices.Clone(program)
	binary.NativeEndian.PutUint16(other[18:], 0xfffe) // e_machine of elf(5)
	for _, tt := range []struct {
		what string
		put  func(path string) error
		want string
	}{
		{"nothing", func(string) error { return nil }, "no such file or directory"},
		{"a directory", func(path string) error { return os.Mkdir(path, 0o755) }, "no regular file"},
		{"a file that is not executable", file(program, 0o644), "permission denied"},
		{"an empty file", file(nil, 0o755), "exec format error"},
		{"a file that is cut off", file(program[:len(program)/2], 0o755), "ended before it answered"},
		{"a program of another machine", file(other, 0o755), "neither a program for this machine"},
		{"a script without its interpreter", file([]byte("#!/nowhere/sh\n"), 0o755), "the interpreter that its first line names"},
		{"a file on a file system without execution", func(path string) error {
			dir := filepath.Dir(path)
			if err := unix.Mount("none", dir, "tmpfs", unix.MS_NOEXEC, ""); err != nil {
				t.Log("no such file system:", err)
				return os.WriteFile(path, program, 0o644)
			}
			t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
			return os.WriteFile(path, program, 0o755)
		}, "permission denied"},
	} {
		u.put(tt.put)
		u.begin("upgrade failed")
		if u.printed(tt.want) == 0 {
			t.Errorf("%s: no line with %q: %q", tt.what, tt.want, u.Lines()[u.done:])
		}
		if err := u.getLocal(); err != nil {
			t.Error(err)
		}
	}
	u.loaded(func() { u.upgrade("", "INFO upgraded") })
}

// TestUpgradeResumes: if the exec fails, the program goes on as it is: the Funcs that were stopped
// run again, and children are started.
func TestUpgradeResumes(t *testing.T) {
	if testing.Short() {
		t.Skip("TestUpgrade goes the same way")
	}
	u := startUpgraded(t, "big")
	u.loaded(func() {
		u.upgrade("", "upgrade failed")
		runtimetest.Eventually(t, "the Func runs again", func() bool { return u.printed("the clock goes") == 1 })
		runtimetest.Eventually(t, "the Func has its state again", func() bool { return u.printed("run 2 of the counter") == 1 })
		if u.printed("argument list too long") == 0 {
			t.Error("the reason is missing")
		}
		if err := u.getLocal(); err != nil {
			t.Error(err)
		}
	})
	kids := runtimetest.Children(t, u.PID())
	if err := syscall.Kill(kids[len(kids)-1], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "another child in its place", func() bool {
		now := runtimetest.Children(t, u.PID())
		return len(now) == len(kids) && !slices.Equal(now, kids)
	})
	u.Signal(syscall.SIGTERM)
	if code := u.Wait(); code != 0 {
		t.Errorf("it exited with %d", code)
	}
}

// TestUpgradeEnds: a request to end that comes during the trial of the new program is carried out.
func TestUpgradeEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("TestUpgrade goes the same way")
	}
	u := startUpgraded(t, "")
	u.upgrade("slow", "the trial goes on")
	u.Signal(syscall.SIGTERM)
	if code := u.Wait(); code != 0 {
		t.Errorf("it exited with %d", code)
	}
	if u.printed("upgrade failed") != 0 {
		t.Error("the old program was executed again")
	}
}

// TestCheckUpgrade: the program at the path says whether it can take over, and nothing else
// happens.
func TestCheckUpgrade(t *testing.T) {
	t.Setenv(upgradeVar, t.TempDir())
	rt := startTree(t, "upgraded")
	plan, err := rt.CheckUpgrade(t.Context())
	if err != nil || len(plan) == 0 || strings.Contains(strings.Join(plan, " "), "web") {
		t.Errorf("the same program: %q, %v", plan, err)
	}
	done := coppice.Func{Name: "done", Restart: supervisor.Temporary, Run: func(context.Context) error { return nil }}
	if err := rt.StartChild(t.Context(), "", done); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "a temporary child that has ended is nothing that would be lost", func() bool {
		_, err := rt.CheckUpgrade(t.Context())
		return err == nil
	})
	if err := rt.StartChild(t.Context(), "", coppice.Process{Name: "added", Command: []string{"sleep", "1h"}}); err != nil {
		t.Fatal(err)
	}
	_, err = rt.CheckUpgrade(t.Context())
	if e, ok := errors.AsType[*coppice.UpgradeError](err); !ok || e.Step != "check" || !strings.Contains(err.Error(), "added was added") {
		t.Errorf("with a child that was added: %v", err)
	}
}
