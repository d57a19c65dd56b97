package coppice

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
)

// TestConsole: what Run and Main print goes to standard error as text, and to the log if the output
// is made of records: the tree as a record for each child, an error as one record.
func TestConsole(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	con := Config{Output: LogOutput(log)}.console()
	if err := con.tree(Tree{Name: "master", Role: "master", State: "running", PID: 7, Children: []Tree{
		{Name: "web", Role: "pool", State: "running", Strategy: "one_for_one", Budget: 10, Used: 2, Children: []Tree{
			{Name: "web/0", Role: "worker", State: "starting", ID: 2, PID: 9, Incarnation: 3, Generation: 1, LastExit: "exit code 3"},
		}},
	}}); err != nil {
		t.Error(err)
	}
	con.line(errors.New("coppice: web/0 did not start: it exited with 1\nweb/0#2 g1| no database"))
	want := `level=INFO msg=tree path=master role=master state=running process.name=master process.pid=7
level=INFO msg=tree path=master/web role=pool state=running strategy=one_for_one restarts_left=8 restarts=10
level=INFO msg=tree path=master/web/0 role=worker state=starting process.name=web/0 process.id=2 process.pid=9 process.incarnation=3 process.generation=1 last_exit="exit code 3"
level=ERROR msg="web/0 did not start: it exited with 1" output="web/0#2 g1| no database"
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	for name, cfg := range map[string]Config{"own streams": {}, "a writer": {Output: io.Discard}} {
		if con := cfg.console(); con.log != nil || con.text != os.Stderr {
			t.Errorf("%s: %+v", name, con)
		}
	}
	b.Reset()
	con = Config{Tags: TagNone, Logger: log}.console()
	con.line("coppice: second signal")
	if !strings.Contains(b.String(), `level=ERROR msg="second signal"`) {
		t.Errorf("lines without tags: %q", b.String())
	}
}

// TestPoolEventLog: the log has each change within a pool once at Info, with its process and times
// that can be read.
func TestPoolEventLog(t *testing.T) {
	process := Identity{Name: "web/0", ID: 5, PID: 9, Incarnation: 3, Generation: 2}
	for _, tt := range []struct {
		ev   Event
		want string
	}{
		{Event{Kind: WorkerStarting, Path: "web", Identity: process}, ""},
		{Event{Kind: WorkerReplaced, Path: "web", Identity: process, Why: "reload", Took: 1503412345}, `level=INFO msg="pool: replaced" pool=web slot=0 process.name=web/0 process.id=5 process.pid=9 process.incarnation=3 process.generation=2 why=reload took=1.503s`},
		{Event{Kind: WorkerDrained, Path: "web", Identity: process, Why: "stop"}, ""},
		{Event{Kind: WorkerDrained, Path: "web", Identity: process, Why: "reload", Forced: 2}, `level=INFO msg="pool: drained" pool=web slot=0 process.name=web/0 process.id=5 process.pid=9 process.incarnation=3 process.generation=2 why=reload forced=2 reason=normal`},
		{Event{Kind: WorkerFailed, Path: "web", Identity: process, Why: "start"}, ""},
		{Event{Kind: WorkerFailed, Path: "web", Identity: Identity{Slot: None, Name: "web/spare"}, Why: "spare"}, `level=WARN msg="pool: failed" pool=web process.name=web/spare why=spare reason=normal`},
		{Event{Kind: PoolScaled, Path: "web", Identity: Identity{Slot: None}, Size: 3}, `level=INFO msg="pool: scaled" pool=web size=3`},
	} {
		var b bytes.Buffer
		log := queued(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})))
		tt.ev.log(log)
		flushLog(log)
		if got := strings.TrimSpace(b.String()); got != tt.want {
			t.Errorf("got  %s\nwant %s", got, tt.want)
		}
	}
}
