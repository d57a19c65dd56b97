//go:build linux

package coppice_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

func init() {
	for _, policy := range []coppice.Policy{coppice.RoundRobin, coppice.Shared} {
		trees["told by signals: "+policy.String()] = func() coppice.Config { return toldBySignals(policy, supervisor.Permanent) }
	}
	trees["told by signals: transient"] = func() coppice.Config {
		return toldBySignals(coppice.RoundRobin, supervisor.Transient)
	}
	for _, otp := range []bool{false, true} {
		name := "tells itself"
		if otp {
			name += ", OTP"
		}
		trees[name] = func() coppice.Config {
			return coppice.Config{Children: []coppice.ChildSpec{coppice.Pool{
				Name: "web", Size: 1, OTP: otp, Intensity: supervisor.Intensity{Max: 1, Period: time.Minute},
				Worker: func(ctx context.Context, w *coppice.Worker) error {
					if err := w.Ready(); err != nil {
						return err
					}
					if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
						return err
					}
					<-ctx.Done()
					return nil
				},
			}}}
		}
	}
}

// toldBySignals is a pool that gives up at its first failure, and cuts requests under way when a
// worker drains as an orphan. A request is answered when its body ends.
func toldBySignals(policy coppice.Policy, restart supervisor.Restart) coppice.Config {
	cfg := pool(2, func(ctx context.Context, w *coppice.Worker) error {
		ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Network: "tcp", Address: "127.0.0.1:0", Policy: policy})
		if err != nil {
			return err
		}
		fmt.Println("AT", ln.Addr())
		return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprint(rw, w.ID())
		})})
	})
	web := cfg.Children[0].(coppice.Pool)
	web.Restart, web.Intensity = restart, supervisor.Intensity{Max: 0, Period: time.Minute}
	cfg.Children[0] = web
	cfg.OrphanDrain = coppice.None
	cfg.Hooks.Started = func(rt *coppice.Runtime) {
		listener := 0
		rt.Snapshot().Walk(func(n coppice.Tree) {
			if n.Role == "listener" {
				listener = n.PID
			}
		})
		fmt.Println("UP", listener)
	}
	return cfg
}

// told is a program whose processes get signals.
type told struct {
	*runtimetest.Program
	t                 *testing.T
	addr              string
	listener          int
	workers, children []int
}

func startTold(t *testing.T, tree string) *told {
	p := &told{Program: runtimetest.Start(t, []string{treeVar + "=told by signals: " + tree}), t: t}
	p.addr = p.Await(`AT (\S+)$`)[1]
	p.listener, _ = strconv.Atoi(p.Await(`^UP (\d+)$`)[1])
	for _, pid := range runtimetest.Children(t, p.PID()) {
		p.children = append(p.children, pid)
		if pid != p.listener {
			p.workers = append(p.workers, pid)
		}
	}
	return p
}

func (p *told) kill(sig syscall.Signal, pids ...int) {
	p.t.Helper()
	for _, pid := range pids {
		if err := syscall.Kill(pid, sig); err != nil {
			p.t.Errorf("process %d: %v", pid, err)
		}
	}
}

// begin sends a request but for its end, and returns when a worker or the backlog has
// it; finish ends it and returns the answer.
func (p *told) begin() (finish func() error) {
	p.t.Helper()
	finish, _ = p.send("POST / HTTP/1.0\r\nContent-Length: 1\r\n\r\n")
	return finish
}

// beginInWorker is begin, and returns when a worker has the request: its handler asks for
// the body.
func (p *told) beginInWorker() (finish func() error) {
	p.t.Helper()
	finish, c := p.send("POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n")
	want := "HTTP/1.1 100 Continue\r\n\r\n"
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		p.t.Fatalf("the request has no worker: %q, %v", b, err)
	}
	return finish
}

// send sends head on a new connection; finish sends the body of one byte and returns the result of
// the request.
func (p *told) send(head string) (finish func() error, c net.Conn) {
	p.t.Helper()
	c, err := net.Dial("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(runtimetest.Patience))
	fmt.Fprint(c, head)
	return func() error {
		if _, err := c.Write([]byte("x")); err != nil {
			return err
		}
		b, err := io.ReadAll(c)
		if err == nil && !strings.HasPrefix(string(b), "HTTP/1.0 200 ") && !strings.HasPrefix(string(b), "HTTP/1.1 200 ") {
			err = fmt.Errorf("answer %q", b)
		}
		return err
	}, c
}

// TestSignalToAll: a signal that every process of a service gets ends it as if the master
// alone had got it: each request is answered, those too that come when the listener process
// has the signal and the master has not, and the exit code is 0. A drain of orphans would
// cut them.
func TestSignalToAll(t *testing.T) {
	order := map[string]func(*told) [][]int{
		"master first":   func(p *told) [][]int { return [][]int{{p.PID()}, p.children} },
		"workers first":  func(p *told) [][]int { return [][]int{p.workers, {p.PID(), p.listener}} },
		"listener first": func(p *told) [][]int { return [][]int{{p.listener}, {p.PID()}, p.workers} },
		"at once":        func(p *told) [][]int { return [][]int{append(p.children, p.PID())} },
		"twice":          func(p *told) [][]int { return [][]int{p.workers, p.workers, {p.listener}, {p.PID()}, p.children} },
	}
	rows := []struct {
		sig    syscall.Signal
		policy coppice.Policy
		orders []string
	}{
		{syscall.SIGTERM, coppice.RoundRobin, []string{"master first", "workers first", "listener first", "at once", "twice"}},
		{syscall.SIGTERM, coppice.Shared, []string{"master first", "workers first", "at once"}},
		{syscall.SIGINT, coppice.RoundRobin, []string{"master first", "workers first", "listener first", "twice"}},
		{syscall.SIGQUIT, coppice.RoundRobin, []string{"master first", "workers first", "listener first"}},
	}
	for _, row := range rows {
		for _, name := range row.orders {
			t.Run(fmt.Sprintf("%v/%v/%s", row.sig, row.policy, name), func(t *testing.T) {
				t.Parallel()
				p := startTold(t, row.policy.String())
				var finish []func() error
				begin := p.begin
				if row.policy == coppice.Shared { // its backlog ends with the last worker that shares it
					begin = p.beginInWorker
				}
				for range 4 {
					finish = append(finish, begin())
				}
				groups := order[name](p)
				for i, pids := range groups {
					p.kill(row.sig, pids...)
					if i == 0 && pids[0] != p.PID() && len(groups) > 1 { // the service goes on until its master gets the signal
						finish = append(finish, begin(), begin())
					}
				}
				p.Await("shutting down")
				for i, f := range finish {
					if err := f(); err != nil {
						t.Errorf("request %d: %v", i, err)
					}
				}
				if code := p.Wait(); code != 0 {
					t.Errorf("exit code %d", code)
				}
				if row.sig == syscall.SIGQUIT && !strings.Contains(strings.Join(p.Lines(), "\n"), "SIGQUIT: the goroutines of process "+strconv.Itoa(p.PID())) {
					t.Error("the master has not shown its goroutines")
				}
			})
		}
	}
}

// TestSignalToOneWorker: a worker that an operator's signal asks to end is replaced before it ends,
// and finishes its work. That is no failure, for the pool has no budget for one. The same holds for
// the listener process.
func TestSignalToOneWorker(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			p := startTold(t, "round-robin")
			finish := []func() error{p.begin(), p.begin()}
			p.kill(sig, p.workers[0], p.listener)
			runtimetest.Eventually(t, "both are replaced", func() bool {
				kids := runtimetest.Children(t, p.PID())
				return len(kids) == 4 && !runtimetest.Alive(p.listener) // the worker has a request
			})
			finish = append(finish, p.begin())
			for i, f := range finish {
				if err := f(); err != nil {
					t.Errorf("request %d: %v", i, err)
				}
			}
			runtimetest.Eventually(t, "the worker has gone", func() bool { return !runtimetest.Alive(p.workers[0]) })
			p.Signal(syscall.SIGTERM)
			if code := p.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// TestSignalToTransientWorker: a worker that is restarted only after a failure drains, and is not
// replaced.
func TestSignalToTransientWorker(t *testing.T) {
	p := startTold(t, "transient")
	finish := []func() error{p.begin(), p.begin()}
	p.kill(syscall.SIGTERM, p.workers[0])
	p.Await("a signal from outside tells a child to end")
	for i, f := range finish {
		if err := f(); err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
	runtimetest.Eventually(t, "one worker and the listener process", func() bool { return len(runtimetest.Children(t, p.PID())) == 2 })
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestMasterDiesInDrain: workers that drain because they were asked to are orphans when
// their master dies, and drain no longer than that.
func TestMasterDiesInDrain(t *testing.T) {
	p := startTold(t, "round-robin")
	p.begin()
	p.kill(syscall.SIGTERM, append(p.children, p.PID())...)
	p.Await("shutting down")
	p.kill(syscall.SIGKILL, p.PID())
	for _, pid := range p.children {
		runtimetest.Eventually(t, "an orphan has gone", func() bool { return !runtimetest.Alive(pid) })
	}
}

// TestSignalsForTheMaster: a signal that has a meaning for a master, and is sent to all, ends no
// child: SIGHUP to all is one reload.
func TestSignalsForTheMaster(t *testing.T) {
	p := startTold(t, "round-robin")
	finish := []func() error{p.begin(), p.begin()}
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGHUP} {
		p.kill(sig, p.children...)
	}
	p.kill(syscall.SIGHUP, p.PID())
	p.Await(`reloaded generation=2 `)
	for i, f := range finish {
		if err := f(); err != nil {
			t.Errorf("request %d: %v", i, err)
		}
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, line := range p.Lines() {
		if strings.Contains(line, "generation=3") || strings.Contains(line, "restart") {
			t.Error(line)
		}
	}
}

// TestSignalsOfAWorkerToItself: a worker that signals itself to end, as soon as it is up, is no
// operator: its ends count, and the pool gives up by its rules, OTP's or its own.
func TestSignalsOfAWorkerToItself(t *testing.T) {
	for _, name := range []string{"tells itself", "tells itself, OTP"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(treeVar, name)
			rt, err := coppice.Start(t.Context(), withReports(trees[name](), nil))
			if err != nil {
				t.Fatal(err)
			}
			sub := rt.Events(coppice.FromNow)
			ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
			defer cancel()
			for ev := range sub.All(ctx) {
				if ev.Kind == coppice.SupervisorGaveUp || ev.Kind == coppice.SupervisorPersists {
					break
				}
			}
			if ctx.Err() != nil {
				t.Error("it is restarted without end, and nothing is said")
			}
			_ = rt.Shutdown(ctx) // the tree may have ended
		})
	}
}
