//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// quick is a heartbeat for tests: a process that hangs is found soon, and a starved machine still
// kills none.
var quick = coppice.Liveness{Every: 20 * time.Millisecond, Timeout: time.Second}

func init() {
	trees["hangs once told"] = func() coppice.Config {
		heart := quick
		heart.Path = "/healthz"
		heart.Check = func(ctx context.Context, w *coppice.Worker) error {
			switch way.Load() {
			case int32(checkFails):
				return errors.New("no database")
			case int32(checkPanics):
				panic("no database")
			case int32(checkBlocks):
				<-stuck
			}
			return nil
		}
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: 1, Liveness: heart, Worker: hangOnceTold,
		}}}
	}
	trees["served and beating"] = func() coppice.Config {
		cfg := trees["served"]()
		web := cfg.Children[0].(coppice.Pool)
		web.Liveness = quick
		cfg.Children[0] = web
		return cfg
	}
	trees["hangs once told, with a core"] = func() coppice.Config {
		cfg := trees["hangs once told"]()
		web := cfg.Children[0].(coppice.Pool)
		web.Environment = coppice.Environment{
			Env: []string{"GOTRACEBACK=crash"}, Rlimits: []coppice.Rlimit{{Name: "core"}}, // the core itself is not wanted
		}
		cfg.Children[0] = web
		return cfg
	}
	trees["beats"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 2, Liveness: quick, Worker: idle}}}
	}
}

// A way to hang, as it is sent to a worker.
type hang int32

const (
	checkFails hang = iota + 1
	checkPanics
	checkBlocks
	handlerBlocks
	handlerSpins
	statusBad
)

var way atomic.Int32

func hangOnceTold(ctx context.Context, w *coppice.Worker) error {
	way.Store(0)
	_, err := w.System().Spawn(ctx, "fuse", func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if s, ok := ctx.Message().(string); ok {
				n, _ := strconv.Atoi(s)
				way.Store(int32(n))
				ctx.Respond("lit")
			}
		})
	})
	if err != nil {
		return err
	}
	ln, err := w.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		switch hang(way.Load()) {
		case handlerBlocks:
			blockInHandler()
		case handlerSpins:
			spinInHandler()
		case statusBad:
			rw.WriteHeader(http.StatusServiceUnavailable)
		case checkFails, checkPanics, checkBlocks: // the page is well
		}
	})})
}

// stuck releases what blocks, if that is a goroutine of the test.
var stuck = make(chan struct{})

//go:noinline
func blockInHandler() { <-stuck }

// spinInHandler is Go code alone, also under the race detector: C code has no stack
// that Go could print.
//
//go:noinline
//go:norace
func spinInHandler() {
	for n := 1; n != 0; n++ {
	}
}

// next waits for an event of that kind.
func next(t *testing.T, sub *coppice.EventReader, kind coppice.EventKind) coppice.Event {
	t.Helper()
	return nextOf(t, sub, kind, "")
}

// nextOf waits for an event of that kind, of the child of that name; "": of any.
func nextOf(t *testing.T, sub *coppice.EventReader, kind coppice.EventKind, name string) coppice.Event {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	for ev := range sub.All(ctx) {
		if ev.Kind == kind && (name == "" || ev.Name == name) {
			return ev
		}
	}
	t.Fatalf("nothing %v %s", kind, name)
	return coppice.Event{}
}

// TestHang is P55 and P92: a worker whose work is not done, for whatever reason, is ended, and its
// replacement works.
func TestHang(t *testing.T) {
	for _, isolation := range []coppice.Isolation{coppice.ProcessIsolation, coppice.GoroutineIsolation} {
		for _, tt := range []struct {
			name string
			way  hang
			why  string // in the exit reason
			dump string // in what a process prints as it is aborted
		}{
			{"the check fails", checkFails, "no database", ""},
			{"the check panics", checkPanics, "panic: no database", ""},
			{"the check blocks", checkBlocks, "no heartbeat", ""},
			{"the handler blocks", handlerBlocks, "no heartbeat", "blockInHandler"},
			{"the handler spins", handlerSpins, "no heartbeat", "spinInHandler"},
			{"the health page says so", statusBad, "GET /healthz: status 503", ""},
		} {
			if isolation == coppice.GoroutineIsolation && tt.way != checkFails && tt.way != handlerBlocks {
				continue // the same code
			}
			t.Run(isolation.String()+"/"+tt.name, func(t *testing.T) {
				t.Setenv("COPPICE_ISOLATION", isolation.String())
				p := startTree(t, "hangs once told")
				sub := p.Events(coppice.FromNow)
				if _, err := p.System().Ask(t.Context(), p.Lookup("web/0/fuse"), strconv.Itoa(int(tt.way))); err != nil {
					t.Fatal(err)
				}
				ev := next(t, sub, coppice.ChildExited)
				if !errors.Is(ev.Reason.Err(), coppice.ErrHung) || !strings.Contains(ev.Reason.String(), tt.why) {
					t.Errorf("ended with %v, want ErrHung and %q", ev.Reason, tt.why)
				}
				switch isolation {
				case coppice.GoroutineIsolation: // they share the test's memory, and go on in it
					if tt.way == handlerBlocks {
						stuck <- struct{}{}
					}
				case coppice.ProcessIsolation:
					if ev.Reason.Kind != supervisor.Exited || ev.Reason.Code != 2 {
						t.Errorf("reason %+v, want exit code 2, Go's after SIGABRT", ev.Reason)
					}
					if tt.dump != "" {
						runtimetest.Eventually(t, "something printed names "+tt.dump, func() bool {
							return strings.Contains(p.output.String(), tt.dump)
						})
					}
				}
				next(t, sub, coppice.ChildStarted)
				if _, err := p.System().Ask(t.Context(), p.Lookup("web/0/fuse"), "0"); err != nil {
					t.Errorf("the replacement: %v", err)
				}
			})
		}
	}
}

// TestHangWithCore: a worker that hangs and is to leave a core dump ends by SIGABRT: it is not
// killed before the kernel writes the core.
func TestHangWithCore(t *testing.T) {
	p := startTree(t, "hangs once told, with a core")
	sub := p.Events(coppice.FromNow)
	if _, err := p.System().Ask(t.Context(), p.Lookup("web/0/fuse"), strconv.Itoa(int(checkBlocks))); err != nil {
		t.Fatal(err)
	}
	ev := next(t, sub, coppice.ChildExited)
	if !errors.Is(ev.Reason.Err(), coppice.ErrHung) || !strings.HasPrefix(ev.Reason.String(), "signal 6 (aborted)") {
		t.Errorf("reason %+v, want SIGABRT and ErrHung", ev.Reason)
	}
}

// TestStopped: a worker that is stopped by SIGSTOP is replaced, and so is the listener process,
// without which no connection would be accepted.
func TestStopped(t *testing.T) {
	p := startTree(t, "served and beating")
	for _, name := range []string{"web/0", "listener"} {
		sub := p.Events(coppice.FromNow)
		pid := p.processes()[name]
		runtimetest.Freeze(t, pid)
		ev := nextOf(t, sub, coppice.ChildExited, name) // a worker that has just started may end for the listener's sake
		nextOf(t, sub, coppice.ChildStarted, name)
		if !errors.Is(ev.Reason.Err(), coppice.ErrHung) {
			t.Errorf("%s ended with %v, want ErrHung", name, ev.Reason)
		}
		get(t, p.Listeners()[0].Addr.String())
	}
}

// TestStoppedTree is P56: a tree that is stopped as a whole, for longer than the master takes to be
// sure that a worker hangs, loses no process when it goes on. The time is measured with a worker of
// another tree that is stopped alone.
func TestStoppedTree(t *testing.T) {
	prog := runtimetest.Start(t, []string{treeVar + "=beats"})
	var pids []int
	runtimetest.Eventually(t, "three processes", func() bool {
		pids = append(runtimetest.Children(t, prog.PID()), prog.PID())
		return len(pids) == 4 // two workers, the listener process, the master
	})
	for _, pid := range pids {
		runtimetest.Freeze(t, pid)
	}
	control := startTree(t, "beats")
	sub := control.Events(coppice.FromNow)
	runtimetest.Freeze(t, control.processes()["web/0"])
	next(t, sub, coppice.ChildExited)
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	runtimetest.Freeze(t, control.processes()["web/1"])
	next(t, sub, coppice.ChildExited)
	for _, pid := range pids {
		if !runtimetest.Alive(pid) {
			t.Errorf("pid %d has ended", pid)
		}
	}
	prog.Signal(syscall.SIGTERM)
	if code := prog.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if strings.Contains(strings.Join(prog.Lines(), "\n"), "hung") {
		t.Error("the tree that was stopped speaks of hanging")
	}
}
