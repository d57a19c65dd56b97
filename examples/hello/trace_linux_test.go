package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/tracing/otlp/otlptest"
)

// TestOneTrace: a connection's accept, hand-off, claim and serve are one trace
// over two processes, exported by a third.
func TestOneTrace(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	t.Setenv("OTEL_SERVICE_NAME", "hello")
	h := start(t, "-quiet")
	worker := h.root()

	tr := r.Wait(t, runtimetest.Patience, func(tr otlptest.Trace) error {
		return tr.Has("accept", "hand-off", "claim", "serve")
	})
	name := fmt.Sprintf("web/%d", worker.Worker)
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
	if got := serve.Resource["process.pid"]; got != fmt.Sprint(worker.PID) {
		t.Errorf("serve is of process %s, and process %d answered", got, worker.PID)
	}
}

// TestTracesOutliveTheirProcesses: what ended just before a stop is exported,
// under one service name, that of the program.
func TestTracesOutliveTheirProcesses(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	h := start(t, "-quiet")
	h.root()
	h.Signal(syscall.SIGTERM)
	if code := h.Wait(); code != 0 {
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
	h := start(t, "-quiet")
	for range 100 {
		h.root()
	}
	h.Signal(syscall.SIGTERM)
	if code := h.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
