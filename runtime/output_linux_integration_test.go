//go:build linux

package coppice_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// gathered keeps the lines that it is given, as they are.
type gathered struct {
	mu    sync.Mutex
	lines []coppice.OutputLine
}

func (g *gathered) Write(b []byte) (int, error) { return len(b), nil } // not used: it is a LineWriter

func (g *gathered) WriteLine(l coppice.OutputLine) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.lines = append(g.lines, l)
	return nil
}

// texts returns the texts of a stream of the process of that name.
func (g *gathered) texts(name, stream string) []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []string
	for _, l := range g.lines {
		if l.Name == name && l.Stream == stream {
			out = append(out, l.Text)
		}
	}
	return out
}

var (
	outputLines gathered
	blocked     = make(chan struct{}) // closed to let blockedWriter go
)

type blockedWriter struct{}

func (blockedWriter) Write(b []byte) (int, error) {
	<-blocked
	return len(b), nil
}

const longLine = 8<<10 + 100 // longer than one piece

func init() {
	trees["prints"] = func() coppice.Config {
		cfg := pool(2, func(ctx context.Context, w *coppice.Worker) error {
			for i := range 200 { // the lines of two workers meet, and are not mixed
				fmt.Printf("%s line %d %s\n", w.Name(), i, strings.Repeat("x", 100))
			}
			fmt.Println(strings.Repeat("y", longLine))
			fmt.Fprint(os.Stderr, "no newline at the end")
			if w.Incarnation() == 1 {
				os.Exit(3)
			}
			return idle(ctx, w)
		})
		cfg.Output, cfg.MaxLine = &outputLines, 8<<10
		web := cfg.Children[0].(coppice.Pool)
		web.MaxParallelStarts = 1 // the failure of one does not end another that prints
		cfg.Children[0] = web
		return cfg
	}
	trees["prints to nobody"] = func() coppice.Config {
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			go func() {
				for line := strings.Repeat("x", 1000); ; {
					fmt.Println(line)
				}
			}()
			return idle(ctx, w)
		})
		cfg.Output = blockedWriter{}
		return cfg
	}
	trees["leaves its output to others"] = func() coppice.Config {
		return coppice.Config{
			Output: &outputLines, Intensity: supervisor.Intensity{Max: 1, Period: time.Hour},
			Children: []coppice.ChildSpec{coppice.Process{
				// The grandchild is in a separate session, so that no kill of the tree reaches it,
				// and keeps both pipes. It prints a line once that is so.
				Name: "daemon", Command: []string{"sh", "-c", `trap "exit 3" USR1; setsid sh -c 'echo $$; exec sleep 3600' & echo "last words" >&2; sleep 3600 & wait`},
				Restart: supervisor.Temporary,
			}},
		}
	}
}

// TestOutput: the output of processes arrives line by line, whole, in the order of each stream,
// with the name of the process; also the last words of a process that ended at once.
func TestOutput(t *testing.T) {
	outputLines = gathered{}
	t.Setenv(treeVar, "prints")
	// The first incarnations end before they are ready: the tree does not start.
	_, err := coppice.Start(t.Context(), withReports(trees["prints"](), nil))
	if err == nil || !strings.Contains(err.Error(), "exited with 3") {
		t.Fatalf("error %v", err)
	}
	stdout := outputLines.texts("web/0", "stdout")
	if len(stdout) != 202 {
		t.Fatalf("%d lines, want 202", len(stdout))
	}
	for i, text := range stdout[:200] {
		if want := fmt.Sprintf("web/0 line %d ", i); !strings.HasPrefix(text, want) || len(text) != len(want)+100 {
			t.Fatalf("line %d is %q", i, text)
		}
	}
	if a, b := stdout[200], stdout[201]; len(a) != 8<<10 || len(b) != 100 {
		t.Errorf("a line of %d bytes came in pieces of %d and %d", longLine, len(a), len(b))
	}
	for _, l := range outputLines.lines {
		if pieces := map[int]int{8 << 10: 1, 100: 2}[len(l.Text)]; l.Stream == "stdout" && (l.Piece != pieces || l.More != (pieces == 1)) {
			t.Errorf("a line of %d bytes is piece %d, more %v", len(l.Text), l.Piece, l.More)
		}
	}
	if got := outputLines.texts("web/0", "stderr"); !slices.Equal(got, []string{"no newline at the end"}) {
		t.Errorf("standard error %q", got)
	}
	l := outputLines.lines[0]
	if l.ID == 0 || l.PID == 0 || l.Incarnation != 1 || l.Generation != 1 || l.Time.IsZero() {
		t.Errorf("line %+v", l)
	}
}

// TestOutputBlocked: a Config.Output that takes nothing does not hold up the
// master: workers are watched and replaced, the tree ends, and what was lost is
// counted.
func TestOutputBlocked(t *testing.T) {
	t.Cleanup(func() { close(blocked) })
	t.Setenv(treeVar, "prints to nobody")
	rt, err := coppice.Start(t.Context(), withReports(trees["prints to nobody"](), nil))
	if err != nil {
		t.Fatal(err)
	}
	p := &runningTree{Runtime: rt, t: t}
	runtimetest.Eventually(t, "lines are lost", func() bool { return rt.Snapshot().LostLines > 0 })
	first := p.pid("web/0")
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "the replacement", func() bool {
		pid := 0
		rt.Snapshot().Walk(func(n coppice.Tree) {
			if n.Name == "web/0" && n.State == "running" {
				pid = n.PID
			}
		})
		return pid != 0 && pid != first
	})
	ctx, cancel := context.WithTimeout(context.Background(), runtimetest.Patience)
	defer cancel()
	if err := rt.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if kids := runtimetest.Children(t, os.Getpid()); len(kids) != 0 {
		t.Errorf("children left: %v", kids)
	}
}

// TestOutputOfGrandchild: a descendant that keeps the pipes does not hide the end of the process,
// and the lines printed before are there.
func TestOutputOfGrandchild(t *testing.T) {
	outputLines = gathered{}
	p := startTree(t, "leaves its output to others")
	sub := p.Events(coppice.FromNow)
	runtimetest.Eventually(t, "its lines", func() bool {
		return len(outputLines.texts("daemon", "stderr")) > 0 && len(outputLines.texts("daemon", "stdout")) > 0
	})
	grandchild, err := strconv.Atoi(outputLines.texts("daemon", "stdout")[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Kill(grandchild, syscall.SIGKILL); err != nil {
			t.Errorf("the grandchild: %v", err)
		}
	}()
	if err := syscall.Kill(p.pid("daemon"), syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	ev := next(t, sub, coppice.ChildExited)
	if !runtimetest.Alive(grandchild) {
		t.Error("the grandchild has ended: nothing was tested")
	}
	if ev.Reason.Kind != supervisor.Exited || ev.Reason.Code != 3 {
		t.Errorf("reason %v", ev.Reason)
	}
}
