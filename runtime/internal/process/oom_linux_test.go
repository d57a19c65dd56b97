package process

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// TestOOMVerdict: the verdict depends on which counter rose.
func TestOOMVerdict(t *testing.T) {
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	set := func(name string, n int) {
		text := fmt.Sprintf("low 0\nhigh 0\nmax 7\noom 9\noom_kill %d\noom_group_kill 0\n", n)
		if err := os.WriteFile(file(name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name        string
		own, shared int // -1: cannot be read
		want        OOM
	}{
		{"nothing rose", 3, 3, NotOOM},
		{"its own", 4, 3, OOMKilled},
		{"both", 4, 4, OOMKilled},
		{"a shared one", 3, 4, PossiblyOOM},
		{"no cgroup of its own", -1, 4, PossiblyOOM},
		{"nothing to read", -1, -1, NotOOM},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var g OOMGauge
			for name, c := range map[string]*counter{"own": &g.own, "shared": &g.shared} {
				set(name, 3)
				c.watch(file(name))
			}
			for name, n := range map[string]int{"own": tt.own, "shared": tt.shared} {
				if n < 0 {
					if err := os.Remove(file(name)); err != nil {
						t.Fatal(err)
					}
				} else {
					set(name, n)
				}
			}
			if got := g.Verdict(); got != tt.want {
				t.Errorf("verdict %d, want %d", got, tt.want)
			}
		})
	}
}

// TestCgroupEvents: a report has what the cgroup has counted and is not 0, in one line.
func TestCgroupEvents(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"memory.events": "low 0\nhigh 3\nmax 70\noom 1\noom_kill 1\n", "pids.events": "max 0\n", "memory.peak": "1048576\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w := &OOMWatch{now: OOMGauge{own: counter{file: filepath.Join(dir, "memory.events")}}}
	if got, want := w.Events(), dir+": memory high 3, memory max 70, memory oom 1, memory oom_kill 1, memory.peak 1048576"; got != want {
		t.Errorf("got %q\nwant %q", got, want)
	}
	if got := (&OOMWatch{}).Events(); got != "" {
		t.Errorf("of our own cgroup: %q", got)
	}
}

// TestBuildID: it is what the go command says.
func TestBuildID(t *testing.T) {
	exe, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	want, err := exec.Command("go", "tool", "buildid", "/proc/"+strconv.Itoa(os.Getpid())+"/exe").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := exe.BuildID(); got == "" || got != strings.TrimSpace(string(want)) {
		t.Errorf("%q, want %s", got, want)
	}
}

// TestOOMKilled: the kernel kills a process in a separate cgroup, and another dies there of a
// SIGKILL that is not the kernel's. Needs a memory cgroup that the test may make (v1, or v2 with
// the controller handed down).
func TestOOMKilled(t *testing.T) {
	dir, limit := memoryCgroup(t)
	for _, tt := range []struct {
		name, command string
		want          OOM
	}{
		{"killed by the kernel", "exec tail /dev/zero", OOMKilled}, // tail keeps the last line: it never ends
		{"killed by somebody", "kill -9 $$", NotOOM},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(limit, []byte(strconv.Itoa(32<<20)), 0o600); err != nil {
				t.Skipf("no limit on the cgroup: %v", err)
			}
			cmd := exec.Command("sh", "-c", "echo $$ > "+filepath.Join(dir, "cgroup.procs")+" && echo moved && read go && "+tt.command)
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if _, err := out.Read(make([]byte, 16)); err != nil {
				t.Skipf("the cgroup takes no process: %v", cmd.Wait())
			}
			g := GaugeOOM(cmd.Process.Pid, "")
			fmt.Fprintln(in, "go")
			_ = cmd.Wait()
			if sig := cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); sig != syscall.SIGKILL {
				t.Fatalf("ended by %v", cmd.ProcessState)
			}
			if got := g.Verdict(); got != tt.want {
				t.Errorf("verdict %d, want %d (%+v)", got, tt.want, g)
			}
		})
	}
}

// memoryCgroup makes a cgroup below this process's, and returns it and the file of
// its limit.
func memoryCgroup(t *testing.T) (dir, limit string) {
	t.Helper()
	events := memoryEvents("self")
	if events == "" {
		t.Skip("no memory cgroup that this process can see")
	}
	name := "memory.max"
	if strings.HasSuffix(events, "oom_control") {
		name = "memory.limit_in_bytes"
	}
	dir, err := os.MkdirTemp(filepath.Dir(events), "coppice-test") //nolint:usetesting // a cgroup, not a directory for files
	if err != nil {
		t.Skipf("no cgroup can be made: %v", err)
	}
	t.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			t.Error(err)
		}
	})
	return dir, filepath.Join(dir, name)
}
