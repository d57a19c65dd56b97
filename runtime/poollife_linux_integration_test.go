//go:build linux

package coppice_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// grown is what a worker that grows holds.
var grown []byte

func init() {
	trees["spares"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: 1, Spares: 1, Intensity: supervisor.Intensity{Max: 100, Period: time.Second},
			Prepare: func(ctx context.Context, w *coppice.Worker) error {
				_, err := w.Listen("tcp", "127.0.0.1:0")
				if !errors.Is(err, coppice.ErrUnsupported) || !errors.Is(w.Ready(), coppice.ErrUnsupported) || w.Slot() != -1 {
					return fmt.Errorf("warm: slot %d, listen: %w", w.Slot(), err)
				}
				return nil
			},
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				return serveUntilAsked(ctx, w, ln)
			},
		}}}
	}
	trees["closes as it fails"] = func() coppice.Config {
		return coppice.Config{Load: loadOrder, Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: 1, Intensity: supervisor.Intensity{Max: 100, Period: time.Second},
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				defer ln.Close()
				err = serveUntilAsked(ctx, w, ln)
				if err != nil && string(w.Config()) == "panic" {
					panic(err)
				}
				return err
			},
		}}}
	}
	scaled := func(cull coppice.ScaleDownOrder) func() coppice.Config {
		return func() coppice.Config {
			cfg := pool(2, func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, name(w))
			})
			p := cfg.Children[0].(coppice.Pool)
			p.ScaleDown = cull
			cfg.Children[0] = p
			return cfg
		}
	}
	trees["scaled"] = scaled(coppice.YoungestFirst)
	trees["scaled, least busy"] = scaled(coppice.LeastBusyFirst)
	recycles := func(r coppice.Recycle, fn coppice.WorkerFunc) func() coppice.Config {
		return func() coppice.Config {
			return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 2, Worker: fn, Recycle: r}}}
		}
	}
	trees["recycles by requests"] = recycles(coppice.Recycle{Requests: 10}, func(ctx context.Context, w *coppice.Worker) error {
		ln, err := w.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		return w.Serve(ctx, ln, name(w))
	})
	trees["recycles by age"] = recycles(coppice.Recycle{Age: 50 * time.Millisecond}, idle)
	grows := func(ctx context.Context, w *coppice.Worker) error {
		if err := w.Ready(); err != nil {
			return err
		}
		if w.Slot() == 0 && w.Incarnation() == 1 {
			grown = make([]byte, 128<<20)
			for i := range grown {
				grown[i] = 1
			}
		}
		<-ctx.Done()
		return nil
	}
	trees["recycles by memory"] = recycles(coppice.Recycle{SoftMemory: 100 << 20, Every: 10 * time.Millisecond}, grows)
	trees["ended by memory"] = recycles(coppice.Recycle{HardMemory: 100 << 20, Every: 10 * time.Millisecond}, grows)
}

// await waits for a pool event.
func (p *runningTree) await(events *coppice.EventReader, what string, is func(coppice.Event) bool) coppice.Event {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), runtimetest.Patience)
	defer cancel()
	for {
		ev, err := events.Next(ctx)
		if err != nil {
			p.t.Fatalf("%s: %v", what, err)
		}
		if is(ev) {
			return ev
		}
	}
}

func kindOf(k coppice.EventKind) func(coppice.Event) bool {
	return func(e coppice.Event) bool { return e.Kind == k }
}

// spare returns the ID of the spare that waits for a slot, or 0.
func (p *runningTree) spare() (id int) {
	p.Snapshot().Walk(func(n coppice.Tree) {
		if n.Role == "spare" && n.State == "running" {
			id = n.ID
		}
	})
	return id
}

// TestSpare: a spare takes the slot of a worker that dies, and another spare is started. The socket
// stays, though the worker that had it has returned an error, and did not just die.
func TestSpare(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		p := startTree(t, "spares")
		events := p.Events(0)
		for range 3 {
			next(t, events, coppice.SpareReady)
			before, spare, addr := p.slots()["web/0"], p.spare(), p.Listeners()[0].Addr.String()
			p.crash()
			runtimetest.Eventually(t, "somebody else is in the slot", func() bool {
				n := p.slots()["web/0"]
				return n.ID != before.ID && n.State == "running"
			})
			if now := p.slots()["web/0"]; now.ID != spare || now.Incarnation != before.Incarnation+1 {
				t.Errorf("%+v has the slot, want the spare #%d", now, spare)
			}
			if now := p.Listeners()[0].Addr.String(); now != addr { // it was never free for another process
				t.Errorf("it listens on %s, and listened on %s", now, addr)
			}
			p.get()
		}
	})
}

// TestClosesAsItFails: a worker that fails and closes its listener by a deferred call does not
// close the pool's socket, though it is the only worker. Before, the socket was closed, clients
// were refused, and the replacement had another port.
func TestClosesAsItFails(t *testing.T) {
	for _, how := range []string{"error", "panic"} {
		t.Run(how, func(t *testing.T) {
			inBoth(t, func(t *testing.T) {
				setOrder(how)
				p := startTree(t, "closes as it fails")
				addr := p.Listeners()[0].Addr.String()
				for incarnation := 2; incarnation < 5; incarnation++ {
					p.crash()
					runtimetest.Eventually(t, "it is replaced", func() bool {
						n := p.slots()["web/0"]
						return n.Incarnation == incarnation && n.State == "running"
					})
					if now := p.Listeners()[0].Addr.String(); now != addr {
						t.Fatalf("it listens on %s, and listened on %s", now, addr)
					}
					p.get()
				}
			})
		})
	}
}

// TestScale (P65): slots come and go while the others serve, and a scaled pool keeps its
// size.
func TestScale(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		p := startTree(t, "scaled")
		for _, size := range []int{4, 1, 3} {
			if err := p.Scale(t.Context(), "web", size); err != nil {
				t.Fatal(err)
			}
			if n := len(p.slots()) - 1; n != size { // without the listener process
				t.Errorf("%d slots, want %d:\n%v", n, size, p.Snapshot())
			}
			for slot := range size {
				if _, ok := p.slots()[fmt.Sprintf("web/%d", slot)]; !ok {
					t.Errorf("the youngest are to go, and slot %d is not there", slot)
				}
			}
			p.get()
		}
		if err := p.Scale(t.Context(), "nobody", 3); !errors.Is(err, coppice.ErrNoPool) {
			t.Errorf("error %v", err)
		}
		if _, ok := errors.AsType[*coppice.InvalidError](p.Scale(t.Context(), "", 0)); !ok {
			t.Error("0 slots are no error")
		}
	})
}

// TestScaleFails: a slot that does not come up is not kept, also when the pool is restarted by its
// supervisor. Before, the pool was started with the size that had failed, and ended the tree.
func TestScaleFails(t *testing.T) {
	inBoth(t, func(t *testing.T) {
		setOrder("fail@3")
		p := startTree(t, "reloads, gives up")
		if err := p.Scale(t.Context(), "web", 4); err == nil || !strings.Contains(err.Error(), "slot 3") || !strings.Contains(err.Error(), "no such database") {
			t.Errorf("error %v", err)
		}
		if n := len(p.slots()) - 1; n != 3 {
			t.Errorf("%d slots, want 3:\n%v", n, p.Snapshot())
		}
		sub := p.Events(coppice.FromNow)
		before := p.slots()["web/2"]
		p.crash()
		next(t, sub, coppice.SupervisorGaveUp)
		runtimetest.Eventually(t, "the pool is back", func() bool {
			n := p.slots()["web/2"]
			return len(p.slots()) == 4 && n.State == "running" && n.ID != before.ID && n.Incarnation == 1
		})
		p.get()
	})
}

// TestScaleLeastBusy: the worker without a connection goes, though it is older.
func TestScaleLeastBusy(t *testing.T) { inBoth(t, testScaleLeastBusy) }

func testScaleLeastBusy(t *testing.T) {
	p := startTree(t, "scaled, least busy")
	addr := p.Listeners()[0].Addr.String()
	// Four connections each at least; then those of slot 0 are closed, and the listener process
	// learns of it.
	conns := map[string][]net.Conn{}
	for len(conns["0"]) < 4 || len(conns["1"]) < 4 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(runtimetest.Patience))
		if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		slot, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		conns[string(slot)] = append(conns[string(slot)], c)
	}
	for _, c := range conns["0"] {
		c.Close()
	}
	runtimetest.Eventually(t, "slot 0 has none open", func() bool {
		infos, err := p.ListenerStats(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range infos[0].Stats.Workers {
			if w.Worker.Slot == 0 {
				return w.Counts.Claimed >= 4 && w.Counts.Open() == 0
			}
		}
		return false
	})
	if err := p.Scale(t.Context(), "", 1); err != nil {
		t.Fatal(err)
	}
	if _, there := p.slots()["web/0"]; there {
		t.Errorf("the busy one went:\n%v", p.Snapshot())
	}
}

// TestRecycle: a worker that has done its share is replaced without its supervisor. The pool's
// workers are not all due at once (P58).
func TestRecycle(t *testing.T) {
	t.Run("requests", func(t *testing.T) { inBoth(t, recycleByRequests) })
	t.Run("age", func(t *testing.T) {
		inBoth(t, func(t *testing.T) {
			p := startTree(t, "recycles by age")
			runtimetest.Eventually(t, "both are at least third", func() bool {
				s := p.slots()
				return s["web/0"].Incarnation >= 3 && s["web/1"].Incarnation >= 3
			})
		})
	})
	t.Run("soft memory", func(t *testing.T) {
		p := startTree(t, "recycles by memory")
		runtimetest.Eventually(t, "the one that grows is replaced", func() bool {
			s := p.slots()
			return s["web/0"].Incarnation == 2 && s["web/1"].Incarnation == 1
		})
		if n := p.slots()["web/0"]; n.LastExit != "" {
			t.Errorf("its supervisor noticed: %v", n.LastExit)
		}
	})
	t.Run("hard memory", func(t *testing.T) {
		p := startTree(t, "ended by memory")
		runtimetest.Eventually(t, "the one that grows is killed", func() bool {
			n := p.slots()["web/0"]
			return n.Incarnation == 2 && n.LastExit != ""
		})
		t.Log(p.slots()["web/0"].LastExit)
	})
}

func recycleByRequests(t *testing.T) {
	p := startTree(t, "recycles by requests")
	events := p.Events(coppice.FromNow)
	due := map[int]int{} // requests until it was due, by slot
	for n := 1; len(due) < 2; n++ {
		p.get()
		e := p.dueNow(events)
		if e != nil {
			due[e.Slot] = n
		}
		if n > 200 {
			t.Fatalf("after %d requests due are %v", n, due)
		}
	}
	p.await(events, "one is replaced", kindOf(coppice.WorkerReplaced))
	if e := p.await(events, "one has drained", kindOf(coppice.WorkerDrained)); e.Why != "recycle" {
		t.Errorf("drained for %q", e.Why)
	}
	if due[0] == due[1] {
		t.Errorf("both were due at once: %v", due)
	}
}

// dueNow returns the next event that names a due worker, if one has come.
func (p *runningTree) dueNow(events *coppice.EventReader) *coppice.Event {
	for {
		kept := events.Kept(1)
		if len(kept) == 0 {
			return nil
		}
		if kept[0].Kind == coppice.WorkerDue {
			return &kept[0]
		}
	}
}

// TestScaleAgain: a worker's first frame is its hello, whatever the other processes send it as soon
// as they know of it. Once in some hundred starts a change of a name came first, and the worker
// waited for its hello until its start timed out. COPPICE_SOAK=1 scales 6,000 times.
func TestScaleAgain(t *testing.T) { inBoth(t, testScaleAgain) }

func testScaleAgain(t *testing.T) {
	p := startTree(t, "served")
	times := 100
	if testing.Short() {
		times = 30
	}
	if os.Getenv("COPPICE_SOAK") != "" {
		times = 6000
	}
	for i := range times {
		ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience/3) // StartTimeout is 30 s
		err := p.Scale(ctx, "web", 3+(i+1)%2)
		cancel()
		if err != nil {
			t.Fatalf("scaling %d: %v\n%v", i, err, p.Snapshot())
		}
	}
}

// TestDrainInReload: a connection without a request outlives the reload of its worker: it answers
// once more and says that it closes then, or is closed at the drain's deadline and counted. Two
// generations drain at once; a third would be too many.
func TestDrainInReload(t *testing.T) { inBoth(t, testDrainInReload) }

func testDrainInReload(t *testing.T) {
	setOrder("serve, park never")
	p := startTree(t, "reloads, drains two")
	events := p.Events(coppice.FromNow)
	web := func(k coppice.EventKind) func(coppice.Event) bool { // and not the listener process
		return func(e coppice.Event) bool { return e.Kind == k && e.Path == "web" }
	}
	replaced := func() *keptAlive { // a connection of a worker that drains
		c := p.keepAlive()
		for c.closes() { // it came to the one that was just asked to drain
			c.mustEnd()
			c = p.keepAlive()
		}
		p.mustReload()
		began := p.await(events, "the drain begins", web(coppice.DrainBegan))
		if began.Why != "reload" || began.Limit <= 0 {
			t.Errorf("%v", began)
		}
		return c
	}
	asks, first := replaced(), replaced()
	if !asks.closes() {
		t.Error("an answer in a drain does not say that the connection closes")
	}
	asks.mustEnd()
	if e := p.await(events, "the first has drained", web(coppice.WorkerDrained)); e.Forced != 0 || e.Generation != 1 {
		t.Errorf("%v", e)
	}
	second, third := replaced(), replaced() // none of these is asked again: the oldest goes
	first.mustEnd()
	if e := p.await(events, "one is cut", web(coppice.DrainCut)); e.Generation != 2 {
		t.Errorf("%v", e)
	}
	if e := p.await(events, "it has ended", web(coppice.WorkerDrained)); e.Forced != 1 || e.Generation != 2 {
		t.Errorf("%v", e)
	}
	second.mustEnd()
	third.mustEnd()
	drained := map[int]bool{}
	for range 2 { // in either order: their deadlines may be moments apart
		e := p.await(events, "its deadline", web(coppice.WorkerDrained))
		if drained[e.Generation] = true; e.Forced != 1 || e.Took <= 0 {
			t.Errorf("%v", e)
		}
	}
	if !drained[3] || !drained[4] {
		t.Errorf("drained: generations %v", drained)
	}
}

func init() {
	trees["a drain without end"] = func() coppice.Config {
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			ln, err := w.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			begun := make(chan struct{}, 1)
			go func() {
				<-begun
				_ = tell(ctx, w, workerReport{Slot: w.Slot()})
			}()
			err = w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				begun <- struct{}{}
				select {}
			})})
			if w.Generation() == 1 {
				select {}
			}
			return err
		})
		web := cfg.Children[0].(coppice.Pool)
		web.Shutdown = 500 * time.Millisecond
		cfg.Children[0] = web
		return cfg
	}
}

// TestIdleIsNotForced: an idle connection that the end of the tree closes is no loss, and is not
// counted as cut.
func TestIdleIsNotForced(t *testing.T) {
	setOrder("serve")
	p := startTree(t, "canary, no sample")
	c := &http.Client{Transport: &http.Transport{}}
	defer c.CloseIdleConnections()
	resp, err := c.Get("http://" + p.Listeners()[0].Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	events := p.Events(coppice.FromNow)
	if err := p.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	for range 2 {
		if ev := next(t, events, coppice.WorkerDrained); ev.Forced != 0 {
			t.Error(ev)
		}
	}
	if s := p.output.String(); strings.Contains(s, "connections cut") {
		t.Error(s)
	}
}

// TestForcedOfKilled: connections that a worker cut at its drain's deadline are counted although
// the worker does not end in time, and is killed.
func TestForcedOfKilled(t *testing.T) {
	p := startTree(t, "a drain without end")
	events := p.Events(coppice.FromNow)
	c, err := net.Dial("tcp", p.Listeners()[0].Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	p.reported(1)
	p.mustReload()
	e := p.await(events, "it has ended", func(e coppice.Event) bool { return e.Kind == coppice.WorkerDrained && e.Path == "web" })
	if e.Forced != 1 || e.Reason.Kind != supervisor.Killed {
		t.Errorf("%v", e)
	}
}

// keptAlive is an HTTP/1 connection, used by hand.
type keptAlive struct {
	t *testing.T
	net.Conn
	r *bufio.Reader
}

func (p *runningTree) keepAlive() *keptAlive {
	p.t.Helper()
	c, err := net.Dial("tcp", p.Listeners()[0].Addr.String())
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(runtimetest.Patience)); err != nil {
		p.t.Fatal(err)
	}
	return &keptAlive{p.t, c, bufio.NewReader(c)}
}

// closes sends a request, and reports whether the answer closes the connection.
func (c *keptAlive) closes() bool {
	c.t.Helper()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		c.t.Fatal(err)
	}
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		c.t.Fatal(err)
	}
	return resp.Close
}

// mustEnd waits for the orderly end of the connection.
func (c *keptAlive) mustEnd() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); !errors.Is(err, io.EOF) {
		c.t.Errorf("read %q, %v: want EOF", b, err)
	}
}

func init() {
	trees["reuseport"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0", Policy: coppice.ReusePort},
			coppice.Pool{Name: "web", Size: 3, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listener(ctx, "http")
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, name(w))
			}},
		}}
	}
}

// TestScaleReusePort: a slot that is removed takes its socket of a ReusePort listener along.
// Before, the master kept it open, and the kernel gave its clients to a socket on which no
// process accepted.
func TestScaleReusePort(t *testing.T) {
	p := startTree(t, "reuseport")
	listening := func() int {
		b, err := os.ReadFile("/proc/net/tcp")
		if err != nil {
			t.Fatal(err)
		}
		port := netip.MustParseAddrPort(p.Listeners()[0].Addr.String()).Port()
		return strings.Count(string(b), fmt.Sprintf(":%04X 00000000:0000 0A", port))
	}
	for _, size := range []int{1, 3, 2} {
		if err := p.Scale(t.Context(), "web", size); err != nil {
			t.Fatal(err)
		}
		runtimetest.Eventually(t, fmt.Sprintf("%d sockets", size), func() bool { return listening() == size })
	}
	for range 8 {
		get(t, p.Listeners()[0].Addr.String())
	}
}
