package netactor

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// deadline bounds every wait in these tests. It is not a measure of anything.
const deadline = 8 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	return ctx
}

// until waits for cond, looking again whenever the scheduler lets it.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	end := time.Now().Add(deadline)
	for !cond() {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("timed out waiting for %s\n%s", what, buf[:runtime.Stack(buf, true)])
		}
		runtime.Gosched()
	}
}

// tree is a master, a listener process and workers in one process, joined by
// Conns in memory or over socket pairs.
type tree struct {
	t        testing.TB
	mem      bool
	table    *Table
	disp     *Dispatcher
	up       [2]*fdipc.Conn // master's and listener's end
	mu       sync.Mutex
	workers  map[uint64]*testWorker
	last     uint64
	cfg      DispatcherConfig
	tableCfg TableConfig
	claim    time.Duration
	hook     func(*acceptSocket)
	second   bool // of two trees: the first counts what leaks
	after    func(time.Duration) <-chan time.Time
}

type testWorker struct {
	Worker
	tree   *tree
	ls     *Listeners
	master [2]*fdipc.Conn // master's and worker's end
	link   [2]*fdipc.Conn // listener's and worker's end
}

var quiet = slog.New(slog.NewTextHandler(io.Discard, nil))

func newTree(t testing.TB, mem bool, change ...func(*tree)) *tree {
	t.Helper()
	tr := &tree{t: t, mem: mem, workers: make(map[uint64]*testWorker), cfg: DispatcherConfig{Logger: quiet}}
	for _, f := range change {
		f(tr)
	}
	if !tr.second {
		checkLeaks(t)
	}
	tr.tableCfg.Logger = quiet
	tr.table = NewTable(tr.tableCfg)
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

// orRefuse refuses the handles of a frame that nobody handled.
func orRefuse(f *fdipc.Frame, handled bool) {
	if !handled {
		f.Refuse(fdipc.ReasonUnknown)
	}
}

// startListener starts a listener process, and links every worker to it.
func (tr *tree) startListener() {
	tr.disp = NewDispatcher(tr.cfg)
	d := tr.disp
	d.sourceHook, d.after = tr.hook, tr.after
	tr.up = tr.pair(
		fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
			orRefuse(f, tr.table.HandleFrame(Worker{ID: 1 << 40}, c, f))
		}},
		fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) { orRefuse(f, d.HandleFrame(Worker{}, c, f)) }},
	)
	tr.table.Attach(tr.up[0])
	for _, w := range tr.workers {
		w.connect()
	}
}

// killListener ends the listener process without a word.
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
	w := &testWorker{tree: tr, Worker: Worker{ID: tr.last, Name: fmt.Sprintf("web/%d", slot), Pool: "web", Slot: slot}}
	ready := make(chan struct{})
	w.master = tr.pair(
		fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
			<-ready
			orRefuse(f, tr.table.HandleFrame(w.Worker, c, f))
		}},
		fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) { orRefuse(f, w.ls.HandleFrame(c, f)) }},
	)
	w.ls = NewListeners(ListenersConfig{Master: w.master[1], Pool: "web", Logger: quiet, Tracer: tr.cfg.Tracer})
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
			Credits:      LinkCredits,
			ClaimTimeout: w.tree.claim,
		},
		fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) { orRefuse(f, w.ls.HandleFrame(c, f)) }, Credits: LinkCredits},
	)
	d.AddWorker(w.Worker, w.link[0])
	w.ls.AddLink(w.link[1])
}

// kill ends a worker without a word, and tells the others.
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

func (w *testWorker) listen(r Request) (net.Listener, error) {
	return w.ls.Listen(testContext(w.tree.t), r)
}

func (w *testWorker) mustListen(r Request) net.Listener {
	w.tree.t.Helper()
	ln, err := w.listen(r)
	if err != nil {
		w.tree.t.Fatalf("%s: listen: %v", w.Name, err)
	}
	return ln
}

func (tr *tree) close() {
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
	// The testing package keeps a reference to tr; what fdipc frees with the
	// garbage is to be counted.
	*tr = tree{}
}

// stats returns the dispatcher's view of the only listener.
func (tr *tree) stats() ListenerStats {
	all := tr.disp.Stats()
	if len(all) == 0 {
		return ListenerStats{}
	}
	return all[0]
}

// serveID accepts on ln until it is closed, and writes id to each connection.
func serveID(ln net.Listener, id string) {
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, id)
		c.Close()
	}
}

// hold accepts on ln until it is closed, and gives away what it accepts.
func hold(ln net.Listener) <-chan net.Conn {
	held := make(chan net.Conn, 1000)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			held <- c
		}
	}()
	return held
}

func dial(t testing.TB, addr net.Addr) net.Conn {
	t.Helper()
	c, err := net.DialTimeout(addr.Network(), addr.String(), deadline)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(deadline))
	return c
}

// ask connects and reads to the end.
func ask1(t testing.TB, network, addr string) string {
	t.Helper()
	s, err := tryAsk(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func tryAsk(network, addr string) (string, error) {
	c, err := net.DialTimeout(network, addr, deadline)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(deadline))
	b, err := io.ReadAll(c)
	return string(b), err
}

// checkLeaks compares descriptors and goroutines at the end with now. It is to
// be called before anything is opened.
func checkLeaks(t testing.TB) {
	t.Helper()
	// The runtime's poller and the like are there from now on.
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close()
	}
	fds, goroutines := countFDs(), runtime.NumGoroutine()
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		until(t, fmt.Sprintf("descriptors to be %d again (now %d) and goroutines %d (now %d)", fds, countFDs(), goroutines, runtime.NumGoroutine()),
			func() bool { runtime.GC(); return countFDs() <= fds && runtime.NumGoroutine() <= goroutines })
	})
}

func countFDs() int {
	e, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0
	}
	return len(e)
}

func mustHandle(t testing.TB, v any) *fdipc.Handle {
	t.Helper()
	h, err := fdipc.HandleOf(v)
	if err != nil {
		t.Fatal(err)
	}
	return h
}
