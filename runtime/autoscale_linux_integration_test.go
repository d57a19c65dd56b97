//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	trees["autoscaled"] = func() coppice.Config {
		return coppice.Config{Load: loadOrder, Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0", Limits: coppice.Limits{PerWorker: 1}},
			coppice.Pool{
				Name: "web", Worker: oneAtATime, Size: 1, Shutdown: 500 * time.Millisecond,
				Autoscale: coppice.Autoscale{Max: 3, Wait: 60 * time.Millisecond, Calm: 200 * time.Millisecond},
			},
		}}
	}
}

// oneAtATime serves the tree's listener, after the gate if it is ordered to.
func oneAtATime(ctx context.Context, w *coppice.Worker) error {
	if string(w.Config()) == "wait" {
		f, err := os.Open(os.Getenv(gateVar)) // a FIFO: until a process opens it for writing
		if err != nil {
			return err
		}
		_ = f.Close() // it was only read
	}
	ln, err := w.Listener(ctx, "http")
	if err != nil {
		return err
	}
	return w.Serve(ctx, ln, name(w))
}

// connect connects a client that says nothing, which a worker has for as long.
func (p *runningTree) connect() net.Conn {
	p.t.Helper()
	c, err := net.Dial("tcp", p.Listeners()[0].Addr.String())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	return c
}

// autoscale returns what the tree says of the pool's autoscaling.
func (p *runningTree) autoscale() (says string) {
	p.Snapshot().Walk(func(n coppice.Tree) { says += n.Autoscale })
	return says
}

// TestAutoscale: the pool grows while connections wait, at most to Max, and says why; it shrinks
// when none does; an operator's size outside the bounds stays.
func TestAutoscale(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		setOrder("serve")
		p := startTree(t, "autoscaled")
		events := p.Events(coppice.FromNow)
		scaled := func(size int, why string) {
			t.Helper()
			if ev := next(t, events, coppice.PoolScaled); ev.Size != size || ev.Err != nil || !strings.Contains(ev.Why, why) || ev.Path != "web" {
				t.Fatalf("%v, want size %d, %q", ev, size, why)
			}
		}
		var clients []net.Conn
		for size := range 3 {
			clients = append(clients, p.connect())
			if size > 0 {
				scaled(size+1, "a connection has waited for ")
			}
		}
		clients = append(clients, p.connect())
		runtimetest.Eventually(t, "no more are allowed", func() bool {
			return strings.HasPrefix(p.autoscale(), "1 to 3 workers by need: no more are allowed: a connection has waited for ") && strings.Contains(p.autoscale(), ": 2 to 3, ")
		})
		runtimetest.Eventually(t, "the log tells it", func() bool { return strings.Contains(p.log.String(), "as many workers as it may") })
		if _, is := p.slots()["web/2"]; !is {
			t.Errorf("no third worker:\n%v", p.Snapshot())
		}
		for _, c := range clients {
			_ = c.Close()
		}
		scaled(2, "no connection has waited for ")
		scaled(1, "no connection has waited for ")
		if err := p.Scale(t.Context(), "web", 5); err != nil {
			t.Fatal(err)
		}
		scaled(5, "")
		runtimetest.Eventually(t, "it stays as it was set", func() bool { return strings.Contains(p.autoscale(), "5 is outside, and stays as it was set") })
		if err := p.Scale(t.Context(), "web", 2); err != nil {
			t.Fatal(err)
		}
		scaled(2, "")
		scaled(1, "no connection has waited for ")
	})
}

// TestAutoscaleInReload: connections wait while a reload runs: nothing is changed until it is over.
func TestAutoscaleInReload(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		open := makeGate(t)
		setOrder("serve")
		p := startTree(t, "autoscaled")
		events := p.Events(coppice.FromNow)
		p.connect()
		setOrder("wait")
		done := make(chan error, 1)
		go func() { done <- p.Reload(t.Context()) }()
		next(t, events, coppice.TreeReloading)
		p.connect()
		runtimetest.Eventually(t, "one waits, and nothing is changed", func() bool {
			infos, err := p.ListenerStats(t.Context())
			return err == nil && infos[0].Stats != nil && infos[0].Stats.Backlog == 1 && strings.Contains(p.autoscale(), "a reload or an upgrade runs")
		})
		open()
		ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
		defer cancel()
		for ev := range events.All(ctx) {
			if ev.Kind == coppice.PoolScaled {
				t.Errorf("%v during a reload", ev)
			}
			if ev.Kind == coppice.TreeReloaded {
				break
			}
		}
		if err := errors.Join(<-done, ctx.Err()); err != nil {
			t.Fatal(err)
		}
		p.connect()
		p.connect()
		if ev := next(t, events, coppice.PoolScaled); ev.Size < 2 {
			t.Errorf("%v", ev)
		}
	})
}
