//go:build linux

package coppice_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// dieVar names the way in which the program "die" ends, after a line on each stream.
const dieVar = "COPPICE_TEST_DIE"

// deadlockSource is a program in which nothing can go on.
const deadlockSource = `package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Println("standard output of deadlock")
	fmt.Fprintln(os.Stderr, "standard error of deadlock")
	select {}
}
`

// death is a way to die, and what must be reported of it.
type death struct {
	name     string
	reason   string // of the event, a prefix
	words    string // of the exit, a prefix; "" = none
	dump     string // what the dump must contain; "" = no dump
	kind     supervisor.ReasonKind
	code     int
	signal   syscall.Signal
	oomed    bool // the process needs a limit on its memory
	alone    bool // needs a process that waits for nothing: not a worker
	ofWorker bool // is a worker's alone
	die      func()
}

// deaths are the ways to die.
var deaths = []death{
	{name: "exit 3", reason: "exit code 3", kind: supervisor.Exited, code: 3, die: func() { os.Exit(3) }},
	{
		name: "panic", reason: "exit code 2: panic: boom", words: "panic: boom", dump: "goroutine ",
		kind: supervisor.Exited, code: 2, die: func() { go panic("boom") },
	},
	{
		name: "nil pointer", reason: "exit code 2: panic: runtime error: invalid memory address", dump: "[signal SIGSEGV",
		words: "panic: runtime error: invalid memory address or nil pointer dereference [signal SIGSEGV: segmentation violation]",
		kind:  supervisor.Exited, code: 2, die: func() { go func() { *(*int)(nil) = 1 }() },
	},
	{
		name: "fault", reason: "exit code 2: fatal error: fault", words: "fatal error: fault [signal SIGSEGV", dump: "goroutine ",
		kind: supervisor.Exited, code: 2, die: func() { // at an address that is not nil: no recover catches it
			page, err := syscall.Mmap(-1, 0, os.Getpagesize(), syscall.PROT_NONE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
			if err != nil {
				panic(err)
			}
			page[0] = 1
		},
	},
	{
		name: "concurrent map writes", reason: "exit code 2: fatal error: concurrent map writes", words: "fatal error: concurrent map writes",
		dump: "goroutine ", kind: supervisor.Exited, code: 2, die: func() {
			m := map[int]int{}
			runtime.GOMAXPROCS(4) // on one CPU a write to a map would not be interrupted by another goroutine
			for range 4 {
				go func() {
					for i := 0; ; i++ {
						m[i%8] = i
					}
				}()
			}
		},
	},
	{
		name: "stack overflow", reason: "exit code 2: fatal error: stack overflow", words: "fatal error: stack overflow",
		dump: "goroutine ", kind: supervisor.Exited, code: 2, die: func() {
			debug.SetMaxStack(32 << 20) // the default of 1 GB takes seconds
			var down func(n int) int
			down = func(n int) int { return down(n+1) + n }
			down(0)
		},
	},
	{
		name: "deadlock", reason: "exit code 2: fatal error: all goroutines are asleep - deadlock!",
		words: "fatal error: all goroutines are asleep - deadlock!", dump: "goroutine 1 [select (no cases)]",
		kind: supervisor.Exited, code: 2, alone: true,
	},
	{
		name: "memory limit", reason: "exit code 2: fatal error: ", words: "fatal error: ", dump: "goroutine ",
		kind: supervisor.Exited, code: 2, oomed: true, die: func() { hoard = make([]byte, 64<<30) },
	},
	{
		name: "SIGSEGV from outside", reason: "exit code 2: SIGSEGV: segmentation violation", words: "SIGSEGV: segmentation violation",
		dump: "goroutine ", kind: supervisor.Exited, code: 2, die: func() { killSelf(syscall.SIGSEGV) },
	},
	{
		name: "SIGABRT", reason: "exit code 2: SIGABRT: abort", words: "SIGABRT: abort", dump: "goroutine ",
		kind: supervisor.Exited, code: 2, die: func() { killSelf(syscall.SIGABRT) },
	},
	{name: "SIGKILL", reason: "signal 9 (killed)", kind: supervisor.Signaled, code: -1, signal: syscall.SIGKILL, die: func() { killSelf(syscall.SIGKILL) }},
	{
		name: "labels", reason: "exit code 2: SIGABRT: abort", words: "SIGABRT: abort", dump: `labels:{"route": "GET /cart"}`,
		kind: supervisor.Exited, code: 2, ofWorker: true, die: func() {
			began := make(chan struct{})
			go pprof.Do(context.Background(), pprof.Labels("route", "GET /cart"), func(context.Context) { close(began); select {} })
			<-began
			killSelf(syscall.SIGABRT)
		},
	},
	{name: "SIGXCPU by default", reason: "signal 24 (CPU time limit exceeded", kind: supervisor.Signaled, code: -1, signal: syscall.SIGXCPU, alone: true},
}

// deadlock is the path of a program that has one.
var deadlock string

// hoard keeps the compiler from leaving an allocation out.
var hoard []byte

func killSelf(sig syscall.Signal) {
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		panic(err)
	}
}

// die ends this process.
func die(name string) {
	fmt.Println("standard output of", name)
	fmt.Fprintln(os.Stderr, "standard error of", name)
	for _, d := range deaths {
		if d.name == name {
			d.die()
			time.Sleep(runtimetest.Patience) // another thread does it; there is no deadlock before
		}
	}
	os.Exit(99)
}

// addressSpace is a limit that a Go program lives with, and hoard does not fit in.
var addressSpace = []coppice.Rlimit{{Name: "as", Soft: 16 << 30, Hard: 16 << 30}}

func init() {
	programs["die"] = func() { die(os.Getenv(dieVar)) }
	trees["dies"] = func() coppice.Config {
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			_, err := w.System().Spawn(ctx, "fuse", func() actor.Actor {
				return actor.ReceiveFunc(func(ctx actor.Context) {
					if way, ok := ctx.Message().(string); ok {
						die(way)
					}
				})
			})
			if err != nil {
				return err
			}
			return idle(ctx, w)
		})
		web := cfg.Children[0].(coppice.Pool)
		web.Intensity = supervisor.Intensity{Max: 100, Period: time.Hour}
		web.Environment.Rlimits = addressSpace
		cfg.Children[0] = web
		cfg.Hooks.Crash = crashed.add
		return cfg
	}
	trees["holds"] = func() coppice.Config {
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			_, err := w.System().Spawn(ctx, "silent", func() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) })
			if err != nil {
				return err
			}
			ln, err := w.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			return w.Serve(ctx, ln, name(w))
		})
		cfg.Hooks.Crash = crashed.add
		return cfg
	}
	trees["programs die"] = func() coppice.Config {
		cfg := coppice.Config{Hooks: coppice.Hooks{Crash: crashed.add}}
		for _, d := range deaths {
			if d.ofWorker {
				continue
			}
			p := coppice.Process{
				Name: strings.ReplaceAll(d.name, " ", "-"), Command: []string{os.Args[0]}, Restart: supervisor.Temporary,
				Environment: coppice.Environment{Env: []string{programVar + "=die", dieVar + "=" + d.name}},
			}
			if d.oomed {
				p.Environment.Rlimits = addressSpace
			}
			switch {
			case d.name == "deadlock":
				p.Command = []string{deadlock}
			case d.die == nil:
				p.Command = []string{"sh", "-c", "echo standard output of " + d.name + "; echo standard error of " + d.name + " >&2; kill -XCPU $$"}
			}
			cfg.Children = append(cfg.Children, p)
		}
		return cfg
	}
}

// crashed gathers crash reports.
var crashed crashes

type crashes struct{ ch chan coppice.CrashReport }

func (c *crashes) add(r coppice.CrashReport) { c.ch <- r }

// await returns the next report.
func (c *crashes) await(t *testing.T) coppice.CrashReport {
	t.Helper()
	select {
	case r := <-c.ch:
		return r
	case <-time.After(runtimetest.Patience):
		t.Fatal("no crash report")
		panic("unreachable")
	}
}

// TestWaysToDie: each way to die, of a worker and of another program, gives the
// right reason, status and last words, in the supervisor's event and in the crash
// report.
func TestWaysToDie(t *testing.T) {
	crashed.ch = make(chan coppice.CrashReport, len(deaths))
	// The race detector's report on the maps would take the place of the last lines.
	t.Setenv("GORACE", os.Getenv("GORACE")+" report_bugs=0")
	t.Run("worker", func(t *testing.T) {
		p := startTree(t, "dies")
		for _, d := range deaths {
			if d.alone {
				continue
			}
			t.Run(d.name, func(t *testing.T) {
				sub := p.Events(coppice.FromNow)
				if err := p.System().Send(t.Context(), p.Lookup("web/0/fuse"), d.name); err != nil {
					t.Fatal(err)
				}
				ev := next(t, sub, coppice.ChildExited)
				r := crashed.await(t)
				checkDeath(t, d.name, ev.Reason, r)
				if r.Build == "" || len(r.Events) == 0 || !strings.Contains(strings.Join(r.Events, "\n"), "web/0") {
					t.Errorf("build %q, events %q", r.Build, r.Events)
				}
				if r.Name != "web/0" || r.Role != "worker" || r.ID == 0 || !r.Ready || int(ev.Incarnation) != r.Incarnation {
					t.Errorf("the report is of %s %s, id %d, incarnation %d, ready %v", r.Role, r.Name, r.ID, r.Incarnation, r.Ready)
				}
				next(t, sub, coppice.ChildStarted)
			})
		}
	})
	t.Run("program", func(t *testing.T) {
		if testing.Short() {
			t.Skip("it builds a program")
		}
		deadlock = filepath.Join(t.TempDir(), "deadlock")
		source := deadlock + ".go"
		if err := os.WriteFile(source, []byte(deadlockSource), 0o600); err != nil {
			t.Fatal(err)
		}
		build := exec.Command("go", "build", "-o", deadlock, source)
		build.Env = append(os.Environ(), "CGO_ENABLED=0") // with cgo Go's runtime does not notice
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("build a program: %v\n%s", err, out)
		}
		startTree(t, "programs die")
		reports := map[string]coppice.CrashReport{}
		ofPrograms := slices.DeleteFunc(slices.Clone(deaths), func(d death) bool { return d.ofWorker })
		for range ofPrograms {
			r := crashed.await(t)
			reports[r.Name] = r
		}
		for _, d := range ofPrograms {
			t.Run(d.name, func(t *testing.T) {
				r := reports[strings.ReplaceAll(d.name, " ", "-")]
				checkDeath(t, d.name, r.Reason, r)
			})
		}
	})
}

// TestIncarnations: the tree, the supervisor's events, which are the log's, and a crash report
// count alike: each worker that a slot has is a further incarnation, whether the supervisor has
// started it or a reload.
func TestIncarnations(t *testing.T) {
	crashed.ch = make(chan coppice.CrashReport, 1)
	p := startTree(t, "dies")
	sub := p.Events(coppice.FromNow)
	if err := p.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	tree := p.slots()["web/0"]
	if err := p.System().Send(t.Context(), p.Lookup("web/0/fuse"), "SIGKILL"); err != nil {
		t.Fatal(err)
	}
	exited, r := next(t, sub, coppice.ChildExited), crashed.await(t)
	if tree.Incarnation != 2 || exited.Incarnation != 2 || r.Incarnation != 2 || r.ID != tree.ID || r.Generation != tree.Generation {
		t.Errorf("the tree: incarnation %d of ID %d; the event: %v; the report:\n%v", tree.Incarnation, tree.ID, exited, r)
	}
	started := next(t, sub, coppice.ChildStarted)
	if tree = p.slots()["web/0"]; started.Incarnation != 3 || tree.Incarnation != 3 {
		t.Errorf("the tree: incarnation %d; the event: %v", tree.Incarnation, started)
	}
}

func checkDeath(t *testing.T, name string, reason supervisor.Reason, r coppice.CrashReport) {
	t.Helper()
	d := deaths[slices.IndexFunc(deaths, func(e death) bool { return e.name == name })]
	exit, ok := errors.AsType[*coppice.Exit](reason.Err())
	if !ok {
		t.Fatalf("no Exit in the reason %v", reason)
	}
	if reason.Kind != d.kind || !strings.HasPrefix(reason.String(), d.reason) {
		t.Errorf("reason %v, want %s", reason, d.reason)
	}
	if exit.Code != d.code || exit.Signal != d.signal || exit.PID == 0 || exit.MaxRSS == 0 || exit.Killed != "" {
		t.Errorf("exit %+v, want code %d, signal %d", exit, d.code, d.signal)
	}
	if (d.words == "") != (exit.Words == "") || !strings.HasPrefix(exit.Words, d.words) {
		t.Errorf("words %q, want %q", exit.Words, d.words)
	}
	if (d.dump == "") != (r.Dump == "") || !strings.Contains(r.Dump, d.dump) {
		t.Errorf("dump %.300q, want one with %q", r.Dump, d.dump)
	}
	if r.Reason.String() != reason.String() || r.Exit.PID != exit.PID || r.Time.IsZero() || r.Uptime <= 0 {
		t.Errorf("report %v", r)
	}
	var out, err bool
	for _, l := range r.Lines {
		out = out || l.Stream == "stdout" && l.Text == "standard output of "+name
		err = err || l.Stream == "stderr" && l.Text == "standard error of "+name
		if strings.HasPrefix(l.Text, "goroutine ") {
			t.Errorf("the dump is in the lines too: %s", l.Text)
		}
	}
	if !out || !err {
		t.Errorf("the last lines of both streams are not all there: %v", r.Lines)
	}
	if b, err := json.Marshal(r); err != nil || !json.Valid(b) {
		t.Errorf("as JSON: %v", err)
	}
}

// TestCrashHeld: the report of a killed worker has its connections and the actors in it that the
// master was asking.
func TestCrashHeld(t *testing.T) {
	crashed.ch = make(chan coppice.CrashReport, 1)
	p := startTree(t, "holds")
	conn, err := net.Dial("tcp", p.Listeners()[0].Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// An answered request says that the connection is claimed; it stays open.
	if _, err := fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	answered := make(chan error, 1)
	go func() {
		_, err := p.System().Ask(ctx, p.Lookup("web/0/silent"), "hello")
		answered <- err
	}()
	me := p.pid("web/0")
	runtimetest.Eventually(t, "the ask is under way", func() bool { return len(p.System().AskedAt("2")) == 1 })
	if err := syscall.Kill(me, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r := crashed.await(t)
	if len(r.Conns) != 1 || r.Conns[0].Open+r.Conns[0].Offered != 1 { // the claim may not be heard of yet
		t.Errorf("held %+v, want one connection", r.Conns)
	}
	if !slices.Equal(r.Asked, []string{"web/0/silent"}) {
		t.Errorf("asked %q", r.Asked)
	}
	if err := <-answered; err == nil {
		t.Error("the ask was answered")
	}
}
