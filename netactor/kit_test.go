package netactor_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/dispatch"
	"github.com/coppice-go/coppice/netactor/internal/inspect"
	"github.com/coppice-go/coppice/netactor/listen"
	"github.com/coppice-go/coppice/netactor/registry"
)

// tree is a master, a listener process and workers in one process, joined by
// Conns in memory or over socket pairs.
type tree struct {
	t        testing.TB
	mem      bool
	table    *registry.Table
	disp     *dispatch.Dispatcher
	up       [2]*fdipc.Conn // master's and listener's end
	mu       sync.Mutex
	workers  map[uint64]*testWorker
	last     uint64
	cfg      dispatch.Config
	tableCfg registry.Config
	claim    time.Duration
	hooks    inspect.DispatcherHooks
	second   bool // the second of two trees: the first one counts leaks
}

type testWorker struct {
	netactor.Worker
	tree   *tree
	ls     *listen.Listeners
	master [2]*fdipc.Conn // master's and worker's end
	link   [2]*fdipc.Conn // listener's and worker's end
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func newTree(t testing.TB, mem bool, change ...func(*tree)) *tree {
	t.Helper()
	tr := &tree{t: t, mem: mem, workers: make(map[uint64]*testWorker), cfg: dispatch.Config{Logger: quiet}}
	for _, f := range change {
		f(tr)
	}
	if !tr.second {
		checkLeaks(t)
	}
	if tr.tableCfg.Logger == nil {
		tr.tableCfg.Logger = quiet
	}
	tr.table = registry.New(tr.tableCfg)
	tr.startListener()
	t.Cleanup(tr.close)
	return tr
}

// bothLinks runs f over memory and over socket pairs.
func bothLinks(t *testing.T, f func(t *testing.T, mem bool)) {
	t.Run("pipe", func(t *testing.T) { f(t, true) })
	if runtime.GOOS == "linux" {
		t.Run("socketpair", func(t *testing.T) { f(t, false) })
	}
}

func (tr *tree) pair(a, b fdipc.Config) [2]*fdipc.Conn {
	tr.t.Helper()
	if tr.mem {
		x, y := fdipc.Pipe(a, b)
		return [2]*fdipc.Conn{x, y}
	}
	f, g, err := fdipc.Socketpair()
	if err != nil {
		tr.t.Fatal(err)
	}
	x, err := fdipc.New(f, a)
	if err != nil {
		tr.t.Fatal(err)
	}
	y, err := fdipc.New(g, b)
	if err != nil {
		tr.t.Fatal(err)
	}
	return [2]*fdipc.Conn{x, y}
}

// orRefuse refuses the handles of a frame that no handler took.
func orRefuse(f *fdipc.Frame, handled bool) {
	if !handled {
		f.Refuse(fdipc.ReasonUnknown)
	}
}

// startListener starts a listener process, links every worker to it, and gives it the sockets.
func (tr *tree) startListener() {
	tr.linkListener()
	tr.table.Attach(tr.up[0])
}

// linkListener is startListener without the sockets, of which Attach tells.
func (tr *tree) linkListener() {
	tr.disp = dispatch.New(tr.cfg)
	d := tr.disp
	inspect.SetHooks(d, tr.hooks)
	tr.up = tr.pair(
		fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
			orRefuse(f, tr.table.HandleFrame(netactor.Worker{ID: 1 << 40}, c, f))
		}},
		fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) { orRefuse(f, d.HandleFrame(netactor.Worker{}, c, f)) }},
	)
	for _, w := range tr.workers {
		w.connect()
	}
}

// killListener ends the listener process without notice.
func (tr *tree) killListener() {
	for _, w := range tr.workers {
		w.link[0].Close()
		w.link[1].Close()
	}
	tr.up[1].Close()
	tr.up[0].Close()
	tr.disp.Close()
	tr.table.Detach()
}

// worker starts a worker of pool web.
func (tr *tree) worker(slot int) *testWorker {
	tr.t.Helper()
	tr.last++
	w := &testWorker{tree: tr, Worker: netactor.Worker{ID: tr.last, Name: fmt.Sprintf("web/%d", slot), Pool: "web", Slot: slot}}
	ready := make(chan struct{})
	w.master = tr.pair(
		fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
			<-ready
			orRefuse(f, tr.table.HandleFrame(w.Worker, c, f))
		}},
		fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) { orRefuse(f, w.ls.HandleFrame(c, f)) }},
	)
	w.ls = listen.New(listen.Config{Master: w.master[1], Pool: "web", Logger: quiet, Tracer: tr.cfg.Tracer})
	tr.table.AddWorker(w.Worker, w.master[0])
	close(ready)
	tr.workers[w.ID] = w
	w.connect()
	return w
}

func (w *testWorker) connect() {
	d := w.tree.disp
	w.link = w.tree.pair(
		fdipc.Config{
			Handler:      func(c *fdipc.Conn, f *fdipc.Frame) { orRefuse(f, d.HandleFrame(w.Worker, c, f)) },
			Resolved:     func(c *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) { d.Settled(c, h, o) },
			Credits:      netactor.LinkCredits,
			ClaimTimeout: w.tree.claim,
		},
		fdipc.Config{
			Handler: func(c *fdipc.Conn, f *fdipc.Frame) { orRefuse(f, w.ls.HandleFrame(c, f)) },
			Resolved: func(c *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
				if !w.ls.Settled(c, h, o) && o != fdipc.Claimed {
					h.Close()
				}
			},
			Credits: netactor.LinkCredits,
		},
	)
	d.AddWorker(w.Worker, w.link[0])
	w.ls.AddLink(w.link[1])
}

// kill ends a worker without notice, and tells the other processes.
func (w *testWorker) kill() {
	w.gone(false)
}

func (w *testWorker) gone(retired bool) {
	delete(w.tree.workers, w.ID)
	w.master[1].Close()
	w.link[1].Close()
	w.tree.table.RemoveWorker(w.ID, retired)
	w.tree.disp.RemoveWorker(w.ID)
	w.link[0].Close()
	w.master[0].Close()
	for _, c := range []*fdipc.Conn{w.master[0], w.master[1], w.link[0], w.link[1]} {
		<-c.Done()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = w.ls.Drain(ctx) // closes what the kernel closes for a process
	_ = w.ls.Close()
}

func (w *testWorker) listen(r netactor.Request) (net.Listener, error) {
	return w.ls.Listen(testContext(w.tree.t), r)
}

func (w *testWorker) mustListen(r netactor.Request) net.Listener {
	w.tree.t.Helper()
	ln, err := w.listen(r)
	if err != nil {
		w.tree.t.Fatalf("%s: listen: %v", w.Name, err)
	}
	return ln
}

func (tr *tree) close() {
	if tr.table == nil {
		return // the test has closed it
	}
	for _, w := range tr.workers {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = w.ls.Drain(ctx)
		_ = w.ls.Close()
	}
	tr.disp.Close()
	for _, w := range tr.workers {
		w.gone(true)
	}
	tr.up[0].Close()
	tr.up[1].Close()
	<-tr.up[0].Done()
	<-tr.up[1].Done()
	tr.table.Close()
	// The testing package keeps a reference to tr, but the leak count must include what fdipc frees
	// with the garbage.
	*tr = tree{}
}

// stats returns the dispatcher's view of the only listener.
func (tr *tree) stats() netactor.ListenerStats {
	all := tr.disp.Stats()
	if len(all) == 0 {
		return netactor.ListenerStats{}
	}
	return all[0]
}

// pickerFunc is a function as a Picker.
type pickerFunc func(netip.AddrPort, []netactor.Load) int

func (f pickerFunc) Pick(p netip.AddrPort, free []netactor.Load) int { return f(p, free) }
