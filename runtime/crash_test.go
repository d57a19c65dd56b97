package coppice

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/output"
	"github.com/coppice-go/coppice/supervisor"
)

var rewrite = flag.Bool("rewrite", false, "write the goldens anew")

// reports are the goldens' reports: one with everything, one of a program, one of
// a goroutine.
func reports() map[string]CrashReport {
	at := time.Date(2026, 11, 24, 13, 0, 5, 250e6, time.UTC)
	line := func(before time.Duration, stream, text string) OutputLine {
		return OutputLine{
			Time: at.Add(-before), Identity: Identity{Name: "web/0", ID: 3, PID: 4711, Incarnation: 2, Generation: 1}, Stream: stream, Text: text,
		}
	}
	panicked := Exit{
		PID: 4711, Code: 2, UserTime: 12 * time.Millisecond, SystemTime: 4 * time.Millisecond, MaxRSS: 12 << 20, Words: "panic: boom",
	}
	stopped := Exit{
		PID: 4712, Code: -1, Signal: syscall.SIGKILL, MaxRSS: 1 << 20, Killed: KilledStop,
		Steps: []StopStep{{"SIGINT", 0}, {"SIGTERM", 4500 * time.Millisecond}, {"SIGKILL", 5 * time.Second}},
	}
	return map[string]CrashReport{
		"panic": {
			Time: at, Identity: Identity{Name: "web/0", ID: 3, PID: 4711, Slot: 0, Incarnation: 2, Generation: 1}, Role: "worker", Ready: true,
			Uptime: 63250 * time.Millisecond, Reason: panicked.reason(endContext{}), Exit: panicked,
			Lines: []OutputLine{line(2*time.Second, output.Stdout, "served /"), line(time.Second, output.Stderr, `level=WARN msg="odd <input>"`)}, Before: 40, Lost: 3,
			Dump: "panic: boom\n\ngoroutine 7 [running]:\nmain.main.func1()\n\t/src/main.go:7 +0x25\n", Cut: 1200,
			Conns: []ListenerConns{{"http", 3, 1}},
			Asked: []string{"web/0/echo"}, Traces: []string{"4bf92f3577b34da6a3ce929d0e0e4736"},
			Serving: []ServedRequest{{"GET /cart\x1b[2J", 1002 * time.Millisecond, "4bf92f3577b34da6a3ce929d0e0e4736"}, {"POST /order", 20 * time.Millisecond, ""}}, More: 3,
			Spans:  []LostSpan{{"GET /cart\x1b[2J", at.Add(-time.Second), "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"}},
			Usage:  []Usage{{at.Add(-12 * time.Second), 10 << 20, 4 * time.Second, 12}, {at.Add(-2 * time.Second), 900 << 20, 13 * time.Second, 14}},
			Cgroup: "/shop/web: memory.events max 12, memory.events oom_kill 1", Build: "abc/def", Core: "/cores/core.4711",
			Events: []string{"12:59:02.000 web/0#3 ready in 100ms"},
		},
		"program": {
			Time: at, Identity: Identity{Name: "below/sleep", PID: 4712, Incarnation: 1}, Role: "process", Uptime: 5 * time.Second,
			Reason: stopped.reason(endContext{stopRequested: true}), Exit: stopped,
		},
		"goroutine": {
			Time: at, Identity: Identity{Name: "web/1", ID: 4, Slot: 1, Incarnation: 1, Generation: 1}, Role: "worker", Ready: true, Uptime: time.Second,
			Reason: supervisor.Reason{Kind: supervisor.Panic, Value: "boom"}, Exit: Exit{Code: 2, Words: "panic: boom"},
			Dump: "goroutine 7 [running]:\n",
		},
	}
}

// TestCrashesGoOn: the program that replaces this one has its crash reports, in their order.
func TestCrashesGoOn(t *testing.T) {
	one, two := newCrashQueue(nil, nil), newCrashQueue(func(r CrashReport) { t.Errorf("delivered twice: %v", r) }, nil)
	all := reports()
	for _, name := range []string{"panic", "program", "goroutine"} {
		r := all[name]
		if name == "program" {
			r.Exit.Lost, r.Dump = errors.New("reaped elsewhere"), "no text: \xff"
		}
		one.report(r)
	}
	saved, err := one.save()
	if err != nil {
		t.Fatal(err)
	}
	if err := two.takeOver(saved); err != nil {
		t.Fatal(err)
	}
	text := func(c *crashQueue) string {
		var b strings.Builder
		for _, r := range c.latest() {
			j, err := json.Marshal(r)
			fmt.Fprintf(&b, "%v\n%s %v\n", r, j, err)
		}
		return b.String()
	}
	if got, want := text(two), strings.ReplaceAll(text(one), "\xff", "?"); got != strings.ReplaceAll(want, `\ufffd`, "?") {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if err := two.takeOver(saved[:len(saved)-1]); err == nil {
		t.Error("a part of it is no error")
	}
	two.close()
}

// TestCrashReport: the report as a text and as JSON, testdata/crash-*.
func TestCrashReport(t *testing.T) {
	for name, r := range reports() {
		t.Run(name, func(t *testing.T) {
			encoded, err := json.MarshalIndent(r, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			for ending, got := range map[string][]byte{".txt": []byte(r.String()), ".json": append(encoded, '\n')} {
				file := filepath.Join("testdata", "crash-"+name+ending)
				if *rewrite {
					if err := os.WriteFile(file, got, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s differs: go test -rewrite, and read the difference\n%s", file, got)
				}
			}
		})
	}
}

// TestCrashFiles: each report becomes a directory for its owner alone; the names sort by time, and
// the oldest go, also those of earlier releases and of a master that was killed meanwhile.
func TestCrashFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "crashes")
	write := CrashFiles(dir, 2)
	r := reports()["panic"]
	names := func() string {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return strings.Join(names, " ")
	}
	for i := range 5 {
		r.Name = "web/0"
		if i == 2 { // in a deep tree
			r.Name = strings.Repeat("below/", 50) + r.Name
		}
		r.Time = r.Time.Add(time.Second)
		write(r)
		if got := len(strings.Fields(names())); got != min(i+1, 2) {
			t.Errorf("report %d: %s", i, names())
		}
		if i == 0 {
			for _, left := range []string{"20250101T000000.000000-web_0-1.crash.txt", "20250101T000000.000000-web_0-1.crash.json.part"} {
				if err := os.WriteFile(filepath.Join(dir, left), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.MkdirAll(filepath.Join(dir, "20250101T000000.000000-web_0-1.crash.part", "x"), 0o700); err != nil {
				t.Fatal(err)
			}
		}
	}
	const want = "20261124T130009.250000-web_0-4711.crash 20261124T130010.250000-web_0-4711.crash"
	if got := names(); got != want {
		t.Errorf("%s\nwant  %s", got, want)
	}
	last := filepath.Join(dir, strings.Fields(want)[1])
	b, err := os.ReadFile(filepath.Join(last, "report.txt"))
	if err != nil || string(b) != r.String() || strings.Contains(string(b), "\x1b") {
		t.Errorf("the text is %q, error %v", b, err)
	}
	if b, err := os.ReadFile(filepath.Join(last, "stacks.txt")); err != nil || string(b) != r.Dump {
		t.Errorf("the stacks are %q, error %v", b, err)
	}
	for path, mode := range map[string]os.FileMode{dir: 0o700, last: 0o700, filepath.Join(last, "report.json"): 0o600} {
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: mode %v, error %v", path, info.Mode(), err)
		}
	}
	at, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer at.Close()
	for _, file := range []string{"notes", "my.crash"} {
		if err := at.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := prune(at, 100, int64(len(b))); err != nil { // room for a half of one
		t.Error(err)
	}
	if got, want := names(), filepath.Base(last)+" my.crash notes"; got != want {
		t.Errorf("%s\nwant  %s", got, want)
	}
}

// TestCrashFilesRefused: a directory that others can change is not used, nor is one behind a link
// that others can have made; a report that cannot be written leaves nothing, and the log has one
// line.
func TestCrashFilesRefused(t *testing.T) {
	var log bytes.Buffer
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(before)
	r := reports()["panic"]
	dir := t.TempDir()
	open, taken := filepath.Join(dir, "open"), filepath.Join(dir, "taken")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777), os.WriteFile(taken, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	refused := map[string]string{open: "all may write to it", taken: "not a directory"}
	if runtime.GOOS == "linux" {
		shared := filepath.Join(dir, "shared") // where others can have put the link
		if err := errors.Join(os.Mkdir(shared, 0o700), os.Symlink(dir, filepath.Join(shared, "link")), os.Chmod(shared, 0o777)); err != nil {
			t.Fatal(err)
		}
		refused[filepath.Join(shared, "link")] = "symbolic link"
	}
	for path, why := range refused {
		log.Reset()
		CrashFiles(path, 0)(r)
		if got := log.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, why) || !strings.Contains(got, "panic: boom") {
			t.Errorf("%s: the log has %q", path, got)
		}
	}
	full := filepath.Join(dir, "full")
	r.Time = r.Time.Add(time.Second)
	if err := os.MkdirAll(filepath.Join(full, "20261124T130006.250000-web_0-4711.crash", "report.txt"), 0o700); err != nil { // in its way
		t.Fatal(err)
	}
	log.Reset()
	CrashFiles(full, 0)(r)
	entries, err := os.ReadDir(full)
	if strings.Count(log.String(), "\n") != 1 || len(entries) != 1 || err != nil {
		t.Errorf("%v %v, and the log has %q", entries, err, &log)
	}
}

// TestCoreFile: where a core dump is, by the patterns of core(5).
func TestCoreFile(t *testing.T) {
	for pattern, want := range map[string]string{
		"/cores/%e.%p.%t%%": "/cores/*.7.*%",
		"/cores/core":       "/cores/core or /cores/core.7",
		"core.%p":           "core.7, in the directory that the process was in",
		"|/usr/lib/systemd/systemd-coredump %P %u": "kept by systemd: coredumpctl info 7",
		"|/usr/share/apport/apport -p%p":           "given to /usr/share/apport/apport",
	} {
		if got := coreFile(pattern, 7); got != want {
			t.Errorf("%s: %q, want %q", pattern, got, want)
		}
	}
}

// TestCrashQueue: a hook that blocks costs reports, which are counted; neither a crash nor the end
// waits long for it.
func TestCrashQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		let := make(chan struct{})
		var took []int
		q := newCrashQueue(func(r CrashReport) {
			<-let
			took = append(took, r.ID)
		}, nil)
		began := time.Now()
		q.report(CrashReport{})
		synctest.Wait() // the hook has the first
		for id := 1; id <= maxCrashes+5; id++ {
			q.report(CrashReport{Identity: Identity{ID: id}})
		}
		if time.Since(began) != 0 || q.q.Lost() != 5 {
			t.Errorf("took %v, lost %d, want 5", time.Since(began), q.q.Lost())
		}
		if lost := q.close(); lost != maxCrashes+6 || time.Since(began) != crashFlush {
			t.Errorf("at the end %d were lost, after %v", lost, time.Since(began))
		}
		q.report(CrashReport{})
		close(let)
		synctest.Wait()
		if len(took) != 1 { // what was counted as lost is not taken
			t.Errorf("taken %v", took)
		}
	})
}
