//go:build linux

package coppice_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	trees["one of everything"] = func() coppice.Config {
		dir := os.Getenv("COPPICE_TEST_DIR")
		work := func(ctx context.Context, w *coppice.Worker) error {
			for _, name := range []string{"tcp", "group", "unix", "shared"} {
				ln, err := w.Listener(ctx, name)
				if err != nil {
					return err
				}
				go answerName(ln, name)
			}
			if _, err := w.PacketConn(ctx, "dns"); err != nil {
				return err
			}
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}
		self, err := os.Executable()
		if err != nil {
			panic(err)
		}
		return coppice.Config{
			Control: coppice.Control{Path: filepath.Join(dir, "control")},
			Load:    func(context.Context) ([]byte, error) { return []byte(strings.Repeat("x", 1<<20)), nil },
			Children: []coppice.ChildSpec{
				coppice.ListenerSpec{Name: "tcp", Network: "tcp", Address: "127.0.0.1:0"},
				coppice.ListenerSpec{Name: "group", Network: "tcp", Address: "127.0.0.1:0", Policy: coppice.ReusePort},
				coppice.ListenerSpec{Name: "unix", Network: "unix", Address: filepath.Join(dir, "unix")},
				coppice.ListenerSpec{Name: "shared", Network: "unix", Address: filepath.Join(dir, "shared"), Policy: coppice.Shared},
				coppice.ListenerSpec{Name: "dns", Network: "udp", Address: "127.0.0.1:0"},
				coppice.Pool{Name: "web", Size: 2, Worker: work},
				coppice.Pool{Name: "inside", Size: 1, Worker: work, Isolation: coppice.GoroutineIsolation},
				coppice.Func{Name: "func", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }},
				coppice.Process{Name: "program", Command: []string{self}, Environment: coppice.Environment{Env: []string{programVar + "=notifies", "MESSAGE=READY=1"}}, Ready: coppice.Ready{Notify: true}},
			},
		}
	}
}

// descriptorNames names the descriptors of a master by what the kernel knows of them: whose they
// are. What it cannot name is in unknown.
func descriptorNames(t *testing.T, pid int) (count map[string]int, unknown []string) {
	t.Helper()
	sockets := socketNames(t, pid)
	outputs := map[string]bool{}
	for _, kid := range runtimetest.Children(t, pid) {
		for _, stream := range []string{"1", "2"} {
			if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%s", kid, stream)); err == nil { // else it has just ended
				outputs[to] = true
			}
		}
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	count = map[string]int{}
	for fd, to := range runtimetest.Descriptors(t, pid) {
		mine, _ := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		memory, isMemory := strings.CutPrefix(strings.TrimSuffix(to, " (deleted)"), "/memfd:")
		name := ""
		switch {
		case fd < 3:
			name = "standard stream"
		case outputs[to]:
			name = "output of a child"
		case mine == to && strings.HasPrefix(to, "pipe:"):
			name = "inherited from who runs the test"
		case to == "anon_inode:[pidfd]":
			info, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
			if err == nil && isChild(t, pid, info) {
				name = "child"
			}
		case strings.HasPrefix(to, "socket:"):
			name = sockets[to]
		case isMemory:
			name = memory
		case to == "anon_inode:[eventpoll]", to == "anon_inode:[eventfd]":
			name = to
		case to == program:
			name = "program file"
		case to == here:
			name = "directory of the start"
		case to == os.Getenv("COPPICE_TEST_DIR"):
			name = "directory of a Unix socket"
		case to == os.DevNull:
			name = "null device"
		case strings.HasPrefix(to, "/sys/fs/cgroup/"):
			name = "limits that Go's runtime reads"
		}
		if name == "" {
			unknown = append(unknown, fmt.Sprintf("%d is %s", fd, to))
			continue
		}
		count[name]++
	}
	return count, unknown
}

// isChild reports whether the text of a pidfd's fdinfo is that of a child of pid.
func isChild(t *testing.T, pid int, info []byte) bool {
	for line := range strings.Lines(string(info)) {
		if of, ok := strings.CutPrefix(line, "Pid:"); ok {
			kid, err := strconv.Atoi(strings.TrimSpace(of))
			return err == nil && slices.Contains(runtimetest.Children(t, pid), kid)
		}
	}
	return false
}

// socketNames names the sockets in the network namespace of a process, each as a descriptor's link
// has it.
func socketNames(t *testing.T, pid int) map[string]string {
	t.Helper()
	names := map[string]string{}
	for _, table := range []string{"unix", "tcp", "udp"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", pid, table))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			switch {
			case table == "unix" && len(f) >= 7: // Num RefCount Protocol Flags Type St Inode Path
				path := strings.Join(f[7:], " ")
				switch {
				case path != "" && f[3] == "00010000":
					base := filepath.Base(path)
					if strings.HasPrefix(base, ".control.") { // bound under that name, then renamed
						base = "control"
					}
					names["socket:["+f[6]+"]"] = "listener " + base
				case path != "" && f[4] == "0002":
					names["socket:["+f[6]+"]"] = "notify socket"
				case path == "" && f[4] == "0005":
					names["socket:["+f[6]+"]"] = "channel"
				}
			case table == "tcp" && len(f) > 9 && f[3] == "0A", table == "udp" && len(f) > 9 && f[3] == "07":
				names["socket:["+f[9]+"]"] = "listener of " + table
			}
		}
	}
	return names
}

// TestCensus: each descriptor of a master that has one of everything is known, and there are as
// many of each kind as its tree explains: at the start, when a worker and the listener process have
// been replaced, and after a reload.
func TestCensus(t *testing.T) {
	t.Setenv("COPPICE_TEST_DIR", t.TempDir())
	p := runtimetest.Start(t, []string{treeVar + "=one of everything"})
	p.Await("the tree is up")
	const children, channels = 4, 3 // a program has no channel
	check := func(moment string) {
		t.Helper()
		var count map[string]int
		var unknown []string
		wrong := func() (why []string) {
			count, unknown = descriptorNames(t, p.PID())
			for name, want := range map[string][2]int{ // least and most
				"child": {children, children}, "output of a child": {2 * children, 2 * children},
				"channel": {2*channels + 6, 2*channels + 6}, "fdipc-claims": {channels, 2*channels + 6}, // 6 of the worker inside, both ends
				"listener of tcp": {4, 8}, "listener of udp": {1, 3}, // one of tcp, a group of three; copies on their way, or in the worker inside
				"listener unix": {1, 3}, "listener shared": {1, 3}, "listener control": {1, 1}, "directory of a Unix socket": {2, 3},
				"configuration": {1, 1}, "program file": {1, 1}, "directory of the start": {1, 1}, "null device": {0, 1}, "notify socket": {0, 1},
				"anon_inode:[eventpoll]": {2, 2}, "anon_inode:[eventfd]": {1, 1}, // Go's, and the watcher of the listening sockets
			} {
				if n := count[name]; n < want[0] || n > want[1] {
					why = append(why, fmt.Sprintf("%s: %d, want %v", name, n, want))
				}
				delete(count, name)
			}
			delete(count, "standard stream")
			delete(count, "inherited from who runs the test")
			delete(count, "limits that Go's runtime reads")
			for name, n := range count {
				why = append(why, fmt.Sprintf("%s: %d, and the tree has none", name, n))
			}
			for _, what := range unknown {
				why = append(why, "without an owner: "+what)
			}
			return why
		}
		var why []string
		deadline, tick := time.After(runtimetest.Patience), time.NewTicker(5*time.Millisecond)
		defer tick.Stop()
		for {
			if why = wrong(); len(why) == 0 {
				return
			}
			select {
			case <-tick.C:
			case <-deadline:
				t.Fatalf("%s: %q", moment, why)
			}
		}
	}
	check("at the start")
	kids := runtimetest.Children(t, p.PID())
	for _, pid := range kids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	runtimetest.Eventually(t, "all children to be replaced", func() bool {
		now := runtimetest.Children(t, p.PID())
		return len(now) == children && !slices.ContainsFunc(now, func(pid int) bool { return slices.Contains(kids, pid) })
	})
	check("after a kill of all children")
	p.Signal(syscall.SIGHUP)
	p.Await(" reloaded ")
	check("after a reload")
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
