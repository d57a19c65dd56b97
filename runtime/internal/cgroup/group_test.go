package cgroup

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// fake makes a directory with files, as a cgroup.
func fake(t *testing.T, files map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestUsage: what the files say, and the same in one line. What is not there is left out.
func TestUsage(t *testing.T) {
	pressure := func(avg string) string { return "some avg10=" + avg + " avg60=0.00 avg300=0.00 total=5000000\n" }
	for _, tt := range []struct {
		name, want string
		files      map[string]string
	}{
		{"all", "memory 32.0/128.0 MiB, peak 64.5; CPU 1.25 s of 150%; tasks 9/64; waits for CPU 3%; waits for memory 12%; 2 killed for want of memory", map[string]string{
			"cgroup.events": "populated 1\nfrozen 0\n", "memory.current": "33554432\n", "memory.max": "134217728\n", "memory.peak": "67633152\n", "memory.high": "max\n",
			"memory.events": "low 0\nhigh 4\nmax 5\noom 1\noom_kill 2\n", "cpu.stat": "usage_usec 1250000\nuser_usec 0\nthrottled_usec 300000\n", "cpu.max": "150000 100000\n",
			"pids.current": "9\n", "pids.max": "64\n", "cpu.pressure": pressure("3.20"), "memory.pressure": pressure("12.00"), "io.pressure": pressure("0.99"),
		}},
		{"without controllers", "CPU 0.50 s", map[string]string{"cgroup.events": "populated 0\n", "cpu.stat": "usage_usec 500000\n"}},
		{"no limits", "memory 32.0 MiB, peak 0.0; CPU 0.00 s; tasks 9", map[string]string{
			"cgroup.events": "populated 1\n", "memory.current": "33554432\n", "memory.max": "max\n", "cpu.max": "max 100000\n", "pids.current": "9\n", "pids.max": "max\n",
		}},
	} {
		g := At(fake(t, tt.files))
		u := g.Usage()
		if u == nil || u.String() != tt.want {
			t.Errorf("%s: %v, want %s", tt.name, u, tt.want)
		}
		if tt.name == "all" && (u.HighEvents != 4 || u.MaxEvents != 5 || u.OOMEvents != 1 || u.OOMKills != 2 || u.ThrottledSeconds != 0.3 || u.MemoryPressure.SomeSeconds != 5) {
			t.Errorf("%+v", u)
		}
		if last := g.LastUsage(); last == nil || *last != *u || g.Usage() != nil {
			t.Errorf("%s: at last %v, then %v", tt.name, last, g.Usage())
		}
	}
	if u := At(t.TempDir()).Usage(); u != nil {
		t.Errorf("of none: %v", u)
	}
	var none *Cgroup
	if none.Usage() != nil || none.Dir() != "" || none.Kill() != nil || none.Remove(0) != nil {
		t.Error("a nil group is none")
	}
}

// TestHandDown: a controller that is there is written once; one that is not is named.
func TestHandDown(t *testing.T) {
	dir := fake(t, map[string]string{controllersFile: "cpu memory\n", handedDown: "cpu\n"})
	for _, c := range []string{"cpu", "memory"} {
		if err := errors.Join(has(dir, c), handDown(dir, c)); err != nil {
			t.Error(err)
		}
	}
	if b, _ := os.ReadFile(filepath.Join(dir, handedDown)); string(b) != "+memory" {
		t.Errorf("written: %q", b)
	}
	if err := has(dir, "pids"); err == nil || !strings.Contains(err.Error(), "the controller pids is not there in "+dir+", which has cpu, memory") {
		t.Error(err)
	}
}

// TestWrite: the settings of a group are written to its files, and to no others.
func TestWrite(t *testing.T) {
	dir := fake(t, map[string]string{"pids.max": ""})
	if err := write(dir, "pids.max", "64"); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(filepath.Join(dir, "pids.max")); string(b) != "64" {
		t.Errorf("written: %q", b)
	}
	if err := write(dir, "memory.max", "64"); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// TestMakeDir: a name that is taken gets the next number; what is refused is explained.
func TestMakeDir(t *testing.T) {
	in := t.TempDir()
	for _, want := range []string{"web-0#7", "web-0#8", "web-0#9"} {
		if got, err := makeDir(in, safe("web/0")+"#", 7); err != nil || filepath.Base(got) != want {
			t.Errorf("%s, %v, want %s", got, err, want)
		}
	}
	for name, want := range map[string]string{"web/0": "web-0", "a b\n..": "a-b-..", "..": "", "Ü": "-", strings.Repeat("x", 300): strings.Repeat("x", 128)} {
		if got := safe(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
	for err, want := range map[error]string{syscall.EROFS: "cgroups are mounted read-only", syscall.EACCES: "Delegate=yes"} {
		if got := refused(&os.PathError{Op: "mkdir", Path: in, Err: err}); !errors.Is(got, err) || !strings.Contains(got.Error(), want) {
			t.Errorf("%v, want %s", got, want)
		}
	}
}

// TestSweepFinds: left over are the groups beside a leaf without processes; others are let be.
func TestSweepFinds(t *testing.T) {
	own := fake(t, map[string]string{
		"coppice-1/coppice-master/cgroup.events": "populated 1\n", "coppice-1/web-0#1/cgroup.events": "populated 1\n", // a master lives
		"coppice-2/coppice-master/cgroup.events": "populated 0\n", "coppice-2/web-0#1/cgroup.events": "populated 1\n", // its worker finishes
		"coppice-3/other/cgroup.events": "populated 1\n", // not ours
	})
	for _, empty := range []string{"coppice-4/coppice-master", "coppice-4/web-0#1", "coppice-5"} { // of plain directories only empty ones can be removed
		if err := os.MkdirAll(filepath.Join(own, empty), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if n := Sweep(own, false); n != 1 {
		t.Errorf("%d are left, want 1", n)
	}
	for name, want := range map[string]bool{"coppice-1": true, "coppice-2": true, "coppice-3": true, "coppice-4": false, "coppice-5": true} {
		if _, err := os.Stat(filepath.Join(own, name)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
}
