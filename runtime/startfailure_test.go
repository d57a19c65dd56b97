package coppice

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// TestSlowStarts: after 5 s the log says, once, what a start waits for without a limit. The socket is
// the last: its watcher waits for the network, and meanwhile the time of the bubble stands still.
func TestSlowStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var said lockedBuffer
		var err error
		log, slow := slog.New(slog.NewTextHandler(&said, nil)), func() { time.Sleep(2 * slowStart) }
		rt := &Runtime{log: log}
		if rt.pipeline, err = tracing.Start(t.Context(), tracing.ProcessResource{}, nil); err != nil { // which is off
			t.Fatal(err)
		}
		rt.sockets = registry.New(registry.Config{Logger: log, Functions: func(string) netactor.Functions {
			return netactor.Functions{Control: func(string, string, syscall.RawConn) error { slow(); return nil }}
		}})
		defer rt.sockets.Close()
		if rt.system, err = actors.NewSystem(actors.Config{Address: "0", Logger: log}); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rt.system.Shutdown(t.Context()) }()
		start := func(spec ChildSpec, name string) {
			i, err := rt.childSpec(&node{path: name, spec: spec}, nil).Start.Start(t.Context(), supervisor.Incarnation{})
			if err != nil {
				t.Fatal(err)
			}
			i.Kill()
		}
		for _, tt := range []struct {
			what string
			do   func()
		}{
			{"Config.Load takes long: after 5s it has not returned", func() {
				_, _ = Config{Logger: log, Load: func(context.Context) ([]byte, error) { slow(); return nil, nil }}.load(t.Context())
			}},
			{"Hooks.Started takes long: after 5s it has not returned", func() { rt.started(t.Context(), func(*Runtime) { slow() }) }},
			{"the start of clock takes long: after 5s its New or its Receive of *actor.Started has not returned", func() {
				start(Actor{Name: "clock", New: func() actor.Actor { slow(); return actor.ReceiveFunc(func(actor.Context) {}) }}, "clock")
			}},
			{"the start of http takes long: after 5s its socket is not open", func() {
				start(ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0", Hooks: ListenerHooks{Control: func(string, string, syscall.RawConn) error { return nil }}}, "http")
			}},
		} {
			said.Reset()
			tt.do()
			if strings.Count(said.String(), "takes long") != 1 || !strings.Contains(said.String(), tt.what) {
				t.Errorf("got %q, want %q", said.String(), tt.what)
			}
		}
	})
}

// lockedBuffer is a buffer that several goroutines use.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedBuffer) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.b.Reset()
}
