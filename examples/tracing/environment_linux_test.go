package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/tracing/otlp/otlptest"
)

// bareVar makes the test binary the program of bare.
const bareVar = "COPPICE_TEST_BARE"

// worseVar names a file: once it is there, no worker can start.
const worseVar = "COPPICE_TEST_WORSE"

func TestMain(m *testing.M) {
	runtimetest.Main(m, func() {
		if os.Getenv(bareVar) != "" {
			bare()
			return
		}
		main()
	})
}

// bare is a program that does for its traces no more than import tracing/otlp.
func bare() {
	coppice.Main(coppice.Config{
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) { fmt.Printf("up at http://%s/\n", rt.Listeners()[0].Addr) }},
		Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
			ln, err := w.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			if _, err := os.Stat(os.Getenv(worseVar)); err == nil {
				return errors.New("it cannot serve")
			}
			return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
				fmt.Fprintln(rw, w.Slot(), os.Getpid())
			})})
		}}},
	})
}

// TestTraceOfAnUpgrade: an upgrade is one trace, over the exec, also if it is taken back.
func TestTraceOfAnUpgrade(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	worse := filepath.Join(t.TempDir(), "worse")
	t.Setenv(worseVar, worse)
	p := startBare(t)
	upgrade := func(want ...string) (tr otlptest.Trace) {
		t.Helper()
		seen := map[string]bool{}
		for _, tr := range r.Traces() {
			seen[tr.ID] = true
		}
		p.Signal(syscall.SIGUSR2)
		return r.Wait(t, runtimetest.Patience, func(tr otlptest.Trace) error {
			if seen[tr.ID] {
				return errors.New("it is the trace of the upgrade before")
			}
			return tr.Has(want...)
		})
	}
	check := func(tr otlptest.Trace, rows ...[3]string) {
		t.Helper()
		for _, row := range rows {
			found := false
			for _, s := range tr.Find(row[0]) {
				parent, _ := tr.Parent(s)
				found = found || parent.Name == row[1] && strings.Contains(s.Message, row[2]) && s.Error == (row[2] != "") &&
					!s.End.Before(s.Start) && (parent.Name == "" || !s.Start.Before(parent.Start))
			}
			if !found {
				t.Errorf("no span %q under %q, of the error %q, within its parent:\n%+v", row[0], row[1], row[2], tr.Spans)
			}
		}
	}
	check(upgrade("upgrade", "reload"),
		[3]string{"upgrade"}, [3]string{"check", "upgrade"}, [3]string{"wait", "upgrade"}, [3]string{"suspend", "upgrade"}, [3]string{"exec", "upgrade"},
		[3]string{"trial", "upgrade"}, [3]string{"roll", "upgrade"}, [3]string{"reload", "roll"}, [3]string{"start", "reload"})
	if err := os.WriteFile(worse, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	const why = "it cannot serve"
	check(upgrade("upgrade", "roll back"),
		[3]string{"upgrade", "", why}, [3]string{"trial", "upgrade"}, [3]string{"roll", "upgrade", why}, [3]string{"reload", "roll", why},
		[3]string{"roll back", "upgrade"}, [3]string{"check", "roll back"}, [3]string{"trial", "roll back"})
}

// bareProgram is bare as it runs, and its URL.
type bareProgram struct {
	*runtimetest.Program
	t   *testing.T
	url string
}

func startBare(t *testing.T) bareProgram {
	t.Helper()
	p := runtimetest.Start(t, []string{bareVar + "=1"})
	return bareProgram{p, t, p.Await(`^up at (.+)$`)[1]}
}

// ask makes a request over a connection of its own, and returns which worker answered.
func (p bareProgram) ask() (slot, pid int) {
	p.t.Helper()
	c := http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := c.Get(p.url)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := fmt.Fscan(resp.Body, &slot, &pid); err != nil {
		p.t.Fatal(err)
	}
	return slot, pid
}

// TestOneTrace: a connection's accept, hand-off, claim and serve are one trace
// over two processes, exported by a third.
func TestOneTrace(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	t.Setenv("OTEL_SERVICE_NAME", "hello")
	slot, pid := startBare(t).ask()

	tr := r.Wait(t, runtimetest.Patience, func(tr otlptest.Trace) error {
		return tr.Has("accept", "hand-off", "claim", "serve")
	})
	name := fmt.Sprintf("web/%d", slot)
	for _, row := range []struct{ span, parent, kind, process string }{
		{"accept", "", "INTERNAL", "listener"},
		{"hand-off", "accept", "PRODUCER", "listener"},
		{"claim", "hand-off", "CONSUMER", "worker"},
		{"serve", "claim", "INTERNAL", "worker"},
	} {
		s := tr.Find(row.span)[0]
		parent, _ := tr.Parent(s)
		if parent.Name != row.parent || s.Kind != row.kind || s.Resource["coppice.process.role"] != row.process {
			t.Errorf("%s: under %q, %s, in a %s; want %+v", s.Name, parent.Name, s.Kind, s.Resource["coppice.process.role"], row)
		}
		if s.Start.Before(parent.Start) {
			t.Errorf("%s starts %v before its parent", s.Name, parent.Start.Sub(s.Start))
		}
		if s.Error {
			t.Errorf("%s failed: %s", s.Name, s.Message)
		}
		if got := s.Resource["service.name"]; got != "hello" {
			t.Errorf("%s is of the service %q", s.Name, got)
		}
	}
	handoff, claim, serve := tr.Find("hand-off")[0], tr.Find("claim")[0], tr.Find("serve")[0]
	if claim.End.After(handoff.End) {
		t.Errorf("claim ends %v after the hand-off", claim.End.Sub(handoff.End))
	}
	if handoff.Attributes["coppice.handoff.outcome"] != "claimed" || handoff.Attributes["coppice.handoff.target"] != name {
		t.Errorf("hand-off: %v, want claimed by %s", handoff.Attributes, name)
	}
	if got := serve.Resource["process.pid"]; got != fmt.Sprint(pid) {
		t.Errorf("serve is of process %s, and process %d answered", got, pid)
	}
}

// TestTracesOutliveTheirProcesses: what ended just before a stop is exported,
// under one service name, that of the program.
func TestTracesOutliveTheirProcesses(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	p := startBare(t)
	p.ask()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	tr := r.Wait(t, runtimetest.Patience, func(tr otlptest.Trace) error {
		return tr.Has("accept", "hand-off", "claim", "serve")
	})
	for _, s := range tr.Spans {
		if got, want := s.Resource["service.name"], filepath.Base(os.Args[0]); got != want {
			t.Errorf("%s is of the service %q, want %q", s.Name, got, want)
		}
	}
}

// TestAbsentCollector: a collector that is not there disturbs nothing.
func TestAbsentCollector(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	p := startBare(t)
	for range 100 {
		p.ask()
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
