//go:build linux

package coppice_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// The tests in this package are masters; their children are the same test binary
// again, which finds its tree by the name in treeVar.
const treeVar = "COPPICE_TEST_TREE"

// trees are all the trees of the tests, by name.
var trees = map[string]func() coppice.Config{}

// programs are what the test binary runs as the program of a Process: by the name in programVar.
var programs = map[string]func(){}

const programVar = "COPPICE_TEST_PROCESS"

func TestMain(m *testing.M) {
	if program := os.Getenv(programVar); program != "" && !coppice.IsChild() {
		programs[program]()
		return
	}
	if coppice.IsChild() {
		tree, ok := trees[os.Getenv(treeVar)]
		if !ok {
			fmt.Fprintf(os.Stderr, "no tree %q\n", os.Getenv(treeVar))
			os.Exit(2)
		}
		start := func() { coppice.Main(withReports(tree(), nil)) }
		if release("elsewhere") {
			go start()
			select {}
		}
		start()
	}
	if os.Getenv(masterVar) != "" {
		runMaster()
	}
	runtimetest.Main(m, func() { coppice.Main(withReports(trees[os.Getenv(treeVar)](), make(chan workerReport, 64))) })
}

// workerReport is what a worker reports to the test: an actor message to the name "report".
type workerReport struct {
	From  string
	Slot  int
	Text  string
	Addr  string
	Error string
	Errno uint64
}

func init() { actors.RegisterType[workerReport]("coppice_test.report") }

// tell sends a report, and calls Ready for the worker.
func tell(ctx context.Context, w *coppice.Worker, r workerReport) error {
	r.From, r.Slot = w.Name(), w.Slot()
	if err := w.System().Send(ctx, w.Lookup("report"), r); err != nil {
		return err
	}
	return w.Ready()
}

// withReports puts an actor that passes reports on before the children of cfg.
func withReports(cfg coppice.Config, to chan<- workerReport) coppice.Config {
	reports := coppice.Actor{Name: "report", New: func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if r, ok := ctx.Message().(workerReport); ok {
				to <- r
			}
		})
	}}
	cfg.Children = append([]coppice.ChildSpec{reports}, cfg.Children...)
	return cfg
}

// runningTree is a running tree and what its workers report.
type runningTree struct {
	*coppice.Runtime
	t       *testing.T
	reports chan workerReport
	output  *printed // by its processes
	log     *printed // by the master
}

// startTree starts the tree of that name. When the test ends it shuts the tree down and checks that
// nothing is left.
func startTree(t *testing.T, name string) *runningTree {
	t.Helper()
	t.Setenv(treeVar, name)
	base := runtime.NumGoroutine()
	fds := len(runtimetest.Descriptors(t, os.Getpid()))
	p := &runningTree{t: t, reports: make(chan workerReport, 64), output: &printed{to: testWriter{t}}, log: &printed{to: testWriter{t}}}
	cfg := withReports(trees[name](), p.reports)
	cfg.Logger = slog.New(slog.NewTextHandler(p.log, nil))
	if cfg.Output == nil {
		cfg.Output = p.output
	}
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	rt, err := coppice.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	p.Runtime = rt
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), runtimetest.Patience)
		defer cancel()
		if err := rt.Shutdown(ctx); err != nil {
			t.Errorf("shutdown: %v", err)
		}
		if kids := runtimetest.Children(t, os.Getpid()); len(kids) != 0 {
			t.Errorf("children left: %v", kids)
		}
		runtimetest.Eventually(t, "goroutines as at the start", func() bool {
			return runtime.NumGoroutine() <= base+1 // the launcher never ends
		})
		runtimetest.Eventually(t, "descriptors as at the start", func() bool {
			return len(runtimetest.Descriptors(t, os.Getpid())) <= fds
		})
	})
	return p
}

// reported waits for n reports, by slot.
func (p *runningTree) reported(n int) map[int]workerReport {
	p.t.Helper()
	got := map[int]workerReport{}
	for deadline := time.After(runtimetest.Patience); len(got) < n; {
		select {
		case r := <-p.reports:
			got[r.Slot] = r
		case <-p.Done():
			p.t.Fatalf("the tree ended: %v", p.Wait())
		case <-deadline:
			p.t.Fatalf("%d reports of %d within %v", len(got), n, runtimetest.Patience)
		}
	}
	return got
}

// printed passes on what is written to it, and keeps it.
type printed struct {
	to testWriter

	mu   sync.Mutex
	text strings.Builder
}

func (p *printed) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text.Write(b)
	return p.to.Write(b)
}

func (p *printed) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// testWriter writes to a test's log.
type testWriter struct{ t *testing.T }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Log(string(b[:max(0, len(b)-1)]))
	return len(b), nil
}

// runTwice is a main with deferred calls, which runs the tree twice.
func runTwice(cfg coppice.Config) int {
	defer fmt.Println("deferred")
	cfg.Service.Signals = true
	var err error
	for n := range 2 {
		cfg.Hooks.Started = func(*coppice.Runtime) { fmt.Println("up", n) }
		if err = coppice.Run(context.Background(), cfg); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		fmt.Println("over", n)
	}
	return coppice.ExitCode(err)
}

func init() {
	trees["announced"] = func() coppice.Config { return pool(1, idle) }
}

// TestRunReturns: Run with Service.Signals returns after a signal: deferred calls run, and the
// next Run has the signals.
func TestRunReturns(t *testing.T) {
	p := runtimetest.Start(t, []string{masterVar + "=run", treeVar + "=announced"})
	for n := range 2 {
		p.Await(fmt.Sprintf("^up %d$", n))
		p.Signal(syscall.SIGTERM)
		p.Await(fmt.Sprintf("^over %d$", n))
	}
	p.Await(`^deferred$`)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestExitCode: which exit code an error of Run means.
func TestExitCode(t *testing.T) {
	invalid := coppice.Run(t.Context(), coppice.Config{})
	for _, tt := range []struct {
		name string
		err  error
		want int
	}{
		{"an orderly end", nil, 0},
		{"a Config that cannot be used", invalid, 2},
		{"anything else", context.DeadlineExceeded, 1},
	} {
		if got := coppice.ExitCode(tt.err); got != tt.want {
			t.Errorf("%s: exit code %d, want %d", tt.name, got, tt.want)
		}
	}
}
