package coppice

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
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
	one, two := newCrashQueue(nil), newCrashQueue(func(r CrashReport) { t.Errorf("delivered twice: %v", r) })
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

// TestCrashFiles: reports become files that sort by time, and the oldest go.
func TestCrashFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "crashes")
	write := CrashFiles(dir, 2)
	r := reports()["panic"]
	for i := range 5 {
		r.Name = "web/0"
		if i == 2 { // in a deep tree
			r.Name = strings.Repeat("below/", 50) + r.Name
		}
		r.Time = r.Time.Add(time.Second)
		write(r)
		if entries, err := os.ReadDir(dir); err != nil || len(entries) != min(2*i+2, 4) {
			t.Errorf("report %d: %d files, %v", i, len(entries), err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if got, want := strings.Join(names, " "), "20261124T130009.250000-web_0-4711.crash.json 20261124T130009.250000-web_0-4711.crash.txt "+
		"20261124T130010.250000-web_0-4711.crash.json 20261124T130010.250000-web_0-4711.crash.txt"; got != want {
		t.Errorf("files %s\nwant  %s", got, want)
	}
	b, err := os.ReadFile(filepath.Join(dir, names[3]))
	if err != nil || string(b) != r.String() {
		t.Errorf("the text is %q, error %v", b, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, error %v", info.Mode(), err)
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
		})
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
