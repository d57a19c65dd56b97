//go:build linux

package coppice_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// The tests of this file are scenarios of Node's own tests of its cluster module that need
// processes; docs/node-cluster-tests.md has the list. Others are in package netactor.

func init() {
	trees["inherited"] = func() coppice.Config {
		return coppice.Config{
			Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) { fmt.Println("listening on", rt.Listeners()[0].Addr) }},
			Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{FD: 3})
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, name(w))
			}}},
		}
	}
	// Each worker ends in the way that an actor message says.
	trees["ends as told"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: 1, Intensity: supervisor.Intensity{Max: 100, Period: time.Minute},
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				_, marked := os.LookupEnv("COPPICE_CHANNEL")
				returned := make(chan error, 1)
				_, err = w.System().Spawn(ctx, "end", func() actor.Actor {
					return actor.ReceiveFunc(func(ctx actor.Context) {
						switch how, _ := ctx.Message().(string); how {
						case "exit":
							os.Exit(42)
						case "close":
							_ = ln.Close()
						case "return":
							returned <- nil
						}
					})
				})
				if err != nil {
					return err
				}
				if err := tell(ctx, w, workerReport{Addr: ln.Addr().String(), Text: fmt.Sprint(marked)}); err != nil {
					return err
				}
				served := make(chan error, 1)
				go func() { served <- w.Serve(ctx, ln, name(w)) }()
				select {
				case err := <-served:
					return err
				case err := <-returned:
					return err
				}
			},
		}}}
	}
	trees["keep-alive"] = func() coppice.Config {
		return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
			Name: "web", Size: 1, Shutdown: 2 * time.Second,
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					return err
				}
				mux := http.NewServeMux()
				mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "ok") })
				mux.HandleFunc("/stuck", func(rw http.ResponseWriter, _ *http.Request) {
					_ = http.NewResponseController(rw).Flush()
					select {}
				})
				return w.Serve(ctx, ln, &http.Server{Handler: mux})
			},
		}}}
	}
}

// masterVar makes the test binary the master of the tree that treeVar names, as a separate program.
const masterVar = "COPPICE_TEST_MASTER"

func runMaster() {
	cfg := withReports(trees[os.Getenv(treeVar)](), nil)
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if os.Getenv(masterVar) == "run" {
		os.Exit(runTwice(cfg))
	}
	coppice.Main(cfg)
}

// TestNodeInherited: N97, N98, N99: a program that was started with a listening socket serves on
// it, and goes on when the process that opened it has closed its own descriptor.
func TestNodeInherited(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	p := runtimetest.StartWith(t, []string{masterVar + "=1", treeVar + "=inherited"}, []*os.File{f})
	f.Close()
	ln.Close()
	if got := p.Await(`^listening on (\S+)$`)[1]; got != ln.Addr().String() {
		t.Errorf("listens on %s, inherited %s", got, ln.Addr())
	}
	for _, pid := range runtimetest.Children(t, p.PID()) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil { // the replacements have it too
			t.Fatal(err)
		}
	}
	for range 4 {
		get(t, ln.Addr().String())
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestNodeEnds: the end of a worker is reported once, and the report says whether it was meant.
func TestNodeEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		end  func(p *runningTree) error
		want func(r supervisor.Reason) bool
	}{
		{"N3 N69 N74 exit code", tellEnd("exit"), func(r supervisor.Reason) bool { return r.Kind == supervisor.Exited && r.Code == 42 }},
		{
			"N78 N79 N80 N81 kill", func(p *runningTree) error { return syscall.Kill(p.pid("web/0"), syscall.SIGKILL) },
			func(r supervisor.Reason) bool {
				return r.Kind == supervisor.Signaled && r.Signal == int(syscall.SIGKILL)
			},
		},
		{"N50 N51 the last listener is closed, and the function returns", tellEnd("close"), func(r supervisor.Reason) bool { return r.Kind == supervisor.Normal }},
		{"N34 N48 the function returns", tellEnd("return"), func(r supervisor.Reason) bool { return r.Kind == supervisor.Normal }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := startTree(t, "ends as told")
			first := p.reported(1)[0]
			if first.Text != "false" {
				t.Error("the marker variable is in the worker's environment") // N3
			}
			pid := p.pid("web/0")
			sub := p.Events(coppice.FromNow)
			if err := tt.end(p); err != nil {
				t.Fatal(err)
			}
			ends := 0
			for ev := range sub.All(t.Context()) {
				if ev.Kind == coppice.ChildExited {
					if ends++; !tt.want(ev.Reason) {
						t.Errorf("reason %v", ev.Reason)
					}
				}
				if ev.Kind == coppice.ChildStarted && ev.Path == "web/0" {
					break
				}
			}
			if ends != 1 {
				t.Errorf("told %d times", ends)
			}
			if runtimetest.Alive(pid) || p.pid("web/0") == pid {
				t.Errorf("process %d is still there", pid)
			}
			next := p.reported(1)[0]
			get(t, next.Addr)
		})
	}
	t.Run("N18 N19 N72 X5 X12 a stop that was asked for", func(t *testing.T) {
		t.Setenv(treeVar, "ends as told")
		rt, err := coppice.Start(t.Context(), withReports(trees["ends as told"](), make(chan workerReport, 8)))
		if err != nil {
			t.Fatal(err)
		}
		sub := rt.Events(coppice.FromNow)
		if err := rt.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		for ev := range sub.All(t.Context()) {
			if ev.Kind == coppice.ChildExited || ev.Kind == coppice.ChildStopped && ev.Reason.Kind != supervisor.Shutdown {
				t.Errorf("%v %s: %v", ev.Kind, ev.Path, ev.Reason)
			}
		}
		if kids := runtimetest.Children(t, os.Getpid()); len(kids) != 0 { // X5
			t.Errorf("children left: %v", kids)
		}
	})
}

// TestNodeEndsAtOnce: kills and stops of the same processes at the same time, and after the end,
// are no error.
func TestNodeEndsAtOnce(t *testing.T) {
	for _, name := range []string{"N6 N70 stop after the end", "N9 N17 N141 many at once"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(treeVar, "served")
			rt, err := coppice.Start(t.Context(), withReports(trees["served"](), nil))
			if err != nil {
				t.Fatal(err)
			}
			pids := (&runningTree{Runtime: rt, t: t}).processes()
			delete(pids, "master")
			var all sync.WaitGroup
			shutdown := func() {
				if err := rt.Shutdown(t.Context()); err != nil {
					t.Errorf("shutdown: %v", err)
				}
			}
			if strings.Contains(name, "N9") {
				for range 3 {
					all.Go(shutdown)
				}
				for name, pid := range pids {
					if name == "listener" {
						continue // it is still needed, to drain
					}
					all.Go(func() {
						for range 3 {
							_ = syscall.Kill(pid, syscall.SIGKILL) // ESRCH once it was reaped
						}
					})
				}
			} else {
				shutdown()
				for range 2 {
					shutdown()
				}
				if err := rt.Wait(); err != nil {
					t.Errorf("wait: %v", err)
				}
			}
			all.Wait()
			if kids := runtimetest.Children(t, os.Getpid()); len(kids) != 0 {
				t.Errorf("children left: %v", kids)
			}
		})
	}
}

func tellEnd(how string) func(p *runningTree) error {
	return func(p *runningTree) error { return p.System().Send(p.t.Context(), p.Lookup("web/0/end"), how) }
}

// TestNodeBusyKeepAlive: X4: a client that never lets its connection rest gets an answer that
// closes it, and a request that never ends is cut at the deadline, so that a drain ends.
func TestNodeBusyKeepAlive(t *testing.T) {
	p := startTree(t, "keep-alive")
	request := func(path string) (net.Conn, *bufio.Reader) {
		c := p.keepAlive()
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		return c, c.r
	}
	_, stuck := request("/stuck")
	if line, err := stuck.ReadString('\n'); !strings.Contains(line, "200") {
		t.Fatalf("%q, %v", line, err)
	}
	busy, answers := request("/")
	down := make(chan error, 1)
	once := false
	for n := 0; ; n++ {
		resp, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", n, err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if n == 10 && !once {
			once = true
			go func() { down <- p.Shutdown(context.WithoutCancel(t.Context())) }()
		}
		if resp.Close {
			t.Logf("told to close with answer %d", n)
			break
		}
		if _, err := io.WriteString(busy, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := answers.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the last answer: %v", err)
	}
	if err := <-down; err != nil {
		t.Errorf("shutdown: %v", err)
	}
	if _, err := io.Copy(io.Discard, stuck); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the stuck request: %v", err)
	}
}
