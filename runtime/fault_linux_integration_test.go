//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

func init() {
	trees["no orphan drain"] = func() coppice.Config {
		cfg := pool(1, idle)
		cfg.OrphanDrain = coppice.None
		return cfg
	}
	trees["served, no heartbeat"] = func() coppice.Config {
		cfg := trees["served"]()
		web := cfg.Children[0].(coppice.Pool)
		web.Liveness.Every = coppice.None
		cfg.Children[0] = web
		return cfg
	}
	trees["served"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: 3, Intensity: supervisor.Intensity{Max: 1000, Period: time.Second},
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, name(w))
			},
		}}}
	}
}

// killAll kills every child process of the tree and returns their numbers.
func (p *runningTree) killAll() map[string]int {
	p.t.Helper()
	pids := p.processes()
	delete(pids, "master")
	for _, pid := range pids {
		// One that came up for the listener process just killed may have gone with it.
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			p.t.Fatal(err)
		}
	}
	return pids
}

// TestEverythingKilled: the listener process and every worker are killed at the same moment, so
// that they start anew side by side. Before, a worker that got its link to the listener process
// before its hello, or two links, was never ready.
func TestEverythingKilled(t *testing.T) {
	p := startTree(t, "served")
	addr := p.Listeners()[0].Addr.String()
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	for range rounds {
		began := time.Now()
		before := p.killAll()
		runtimetest.Eventually(t, "everybody replaced", func() bool {
			after := p.processes()
			for name, pid := range before {
				if after[name] == 0 || after[name] == pid {
					return false
				}
			}
			return true
		})
		get(t, addr)
		if took := time.Since(began); took > 20*time.Second { // StartTimeout is 30 s
			t.Errorf("replaced after %v", took)
		}
	}
}

// TestShutdownDuringRestart shuts trees down, with no time for it, while their processes are being
// started.
func TestShutdownDuringRestart(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	t.Setenv(treeVar, "served")
	for range rounds {
		rt, err := coppice.Start(t.Context(), withReports(trees["served"](), nil))
		if err != nil {
			t.Fatal(err)
		}
		sub := rt.Events(coppice.FromNow)
		(&runningTree{Runtime: rt, t: t}).killAll()
		for ev := range sub.All(t.Context()) {
			if ev.Kind == coppice.ChildExited {
				break
			}
		}
		now, cancel := context.WithCancel(t.Context())
		cancel()
		_ = rt.Shutdown(now) // says what it killed
		if kids := runtimetest.Children(t, os.Getpid()); len(kids) != 0 {
			t.Fatalf("children left: %v", kids)
		}
	}
}

// TestNoOrphanDrain: a child that ends in order is not killed by its own drain timer, however short
// its time as an orphan would be. It used to kill itself while it exited.
func TestNoOrphanDrain(t *testing.T) {
	p := startTree(t, "no orphan drain")
	sub := p.Events(coppice.FromNow)
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	stopped := 0
	for ev := range sub.All(t.Context()) {
		if ev.Kind != coppice.ChildStopped {
			continue
		}
		stopped++
		if ev.Reason.Kind != supervisor.Shutdown {
			t.Errorf("%s: %v", ev.Path, ev.Reason)
		}
	}
	if stopped == 0 {
		t.Error("nobody was stopped")
	}
}

// TestEndedDuringStart: Run is asked to end while a worker is not ready yet.
func TestEndedDuringStart(t *testing.T) {
	t.Setenv("COPPICE_ISOLATION", "goroutine")
	ctx, cancel := context.WithCancel(t.Context())
	err := coppice.Run(ctx, pool(1, func(ctx context.Context, w *coppice.Worker) error {
		cancel()
		<-ctx.Done()
		return nil
	}))
	if err != nil {
		t.Errorf("error %v", err)
	}
}

// TestStoppedWhileLinked: workers are stopped while the listener process is replaced, for longer
// than a descriptor is offered on other channels, and then go on: they get connections again.
// Before, they were passed over for ever.
func TestStoppedWhileLinked(t *testing.T) {
	p := startTree(t, "served, no heartbeat")
	addr := p.Listeners()[0].Addr.String()
	pids := p.processes()
	for slot := range 2 {
		runtimetest.Freeze(t, pids[fmt.Sprintf("web/%d", slot)])
	}
	p.killListener()
	awaitClaimTimeout(t)
	if got := get(t, addr); got != "2" {
		t.Errorf("slot %s answers, which is stopped", got)
	}
	for slot := range 2 {
		if err := syscall.Kill(pids[fmt.Sprintf("web/%d", slot)], syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
	}
	p.allAnswer(3)
	for name, pid := range p.processes() {
		if name != "listener" && pid != pids[name] {
			t.Errorf("%s was replaced", name)
		}
	}
}

// TestDeafWorker: the listener process is replaced while a worker that no heartbeat watches does
// not read the master's frames. The master does not wait for the worker: it replaces it. Before,
// the start of the listener process waited for the worker without end, and no connection was
// accepted.
func TestDeafWorker(t *testing.T) {
	p := startTree(t, "served, no heartbeat")
	sub := p.Events(coppice.FromNow)
	pid := p.processes()["web/1"]
	runtimetest.Freeze(t, pid)
	runtimetest.Eventually(t, "the worker is killed", func() bool {
		p.Deafen("web/1") // until its queue is full, which the kernel may empty once more
		p.killListener()
		return !runtimetest.Alive(pid)
	})
	for {
		if ev := next(t, sub, coppice.ChildExited); strings.HasSuffix(ev.Path, "web/1") {
			if !strings.Contains(ev.Reason.String(), string(coppice.KilledNotReading)) {
				t.Errorf("it ended with %v", ev.Reason)
			}
			break
		}
	}
	p.allAnswer(3)
}

// killListener kills the listener process, and waits until another accepts.
func (p *runningTree) killListener() {
	p.t.Helper()
	pid := p.processes()["listener"]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		p.t.Fatal(err)
	}
	runtimetest.Eventually(p.t, "the listener process is replaced", func() bool {
		now := p.running("listener")
		return now != 0 && now != pid
	})
}

// allAnswer waits until as many slots have answered.
func (p *runningTree) allAnswer(slots int) {
	p.t.Helper()
	answered := map[string]bool{}
	runtimetest.Eventually(p.t, "everybody answers", func() bool {
		answered[p.get()] = true
		return len(answered) == slots
	})
}

// awaitClaimTimeout waits as long as package fdipc keeps an offered descriptor by default: until an
// unclaimed descriptor has come back.
func awaitClaimTimeout(t *testing.T) {
	t.Helper()
	heard, back := make(chan *fdipc.Handle, 1), make(chan fdipc.Outcome, 1)
	mine, its := fdipc.Pipe(fdipc.Config{
		Handler:  func(*fdipc.Conn, *fdipc.Frame) {},
		Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) { _ = h.Close(); back <- o },
	}, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { heard <- f.Handles[0] }})
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	h, err := fdipc.HandleOf(null)
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Send(t.Context(), &fdipc.Frame{Kind: fdipc.FirstUserKind, Handles: []*fdipc.Handle{h}}); err != nil {
		t.Fatal(err)
	}
	<-heard
	if o := <-back; o != fdipc.Returned {
		t.Fatal(o)
	}
	_, _ = mine.Close(), its.Close()
}
