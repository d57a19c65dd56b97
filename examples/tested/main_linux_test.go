package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// client has a connection for each request.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func ask(t *testing.T, method, addr, body string) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}

// expect is ask, with the answer that must come.
func expect(t *testing.T, method, addr, body string, status int, text string) {
	t.Helper()
	if gotStatus, got := ask(t, method, addr, body); gotStatus != status || !strings.Contains(got, text) {
		t.Errorf("%s: %d %q, want %d %q", method, gotStatus, got, status, text)
	}
}

// always answers each message of the worker with 41.
type always struct{}

func (always) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(wrote); ok {
		ctx.Respond(uint64(41))
	}
}

// withConfig is a configuration for a worker, and an actor that it asks.
func withConfig(json string) coppice.Config {
	return coppice.Config{
		Load:     func(context.Context) ([]byte, error) { return []byte(json), nil },
		Children: []coppice.ChildSpec{coppice.Actor{Name: "writes", New: func() actor.Actor { return always{} }}},
	}
}

func TestWorker(t *testing.T) {
	runtimetest.Leaks(t) // first: its check is the last thing that the test does
	w := runtimetest.Worker(t, serve, withConfig(`{"Addr": "127.0.0.1:0", "Dir": "`+t.TempDir()+`"}`))
	expect(t, "PUT", w.Addr(), "hello", 200, "worker/0: write 41")
	expect(t, "GET", w.Addr(), "", 200, "hello")
	if err := w.Stop(); err != nil { // drains, and returns what serve returned
		t.Error(err)
	}
}

func TestWorkerRefuses(t *testing.T) {
	w := runtimetest.Worker(t, serve, withConfig("no JSON"))
	if err := w.Wait(); err == nil || !strings.Contains(err.Error(), "configuration: invalid character") {
		t.Errorf("serve returned %v", err)
	}
}

func TestTree(t *testing.T) {
	cfg := tree(config{"127.0.0.1:0", t.TempDir()})
	rt := runtimetest.Tree(t, cfg) // every worker is ready; the end of the test ends the tree
	addr := rt.Listeners()[0].Addr.String()
	expect(t, "PUT", addr, "hello", 200, ": write 1")
	expect(t, "PUT", addr, "hello", 200, ": write 2") // of the other worker: they share the actor
}

func TestKilled(t *testing.T) {
	faults := runtimetest.NewFaults(t)
	at = faults.At // in each process: what stands before Tree runs in all
	dir := t.TempDir()
	rt := runtimetest.Tree(t, tree(config{"127.0.0.1:0", dir}))
	addr := rt.Listeners()[0].Addr.String()
	expect(t, "PUT", addr, "old", 200, "write 1")

	faults.Kill("before the rename")
	expect(t, "PUT", addr, "new", 0, "EOF") // the worker is gone, and its answer
	expect(t, "GET", addr, "", 200, "old")  // the other one answers
	faults.Await("before the rename")
	if b, err := os.ReadFile(filepath.Join(dir, "note")); err != nil || string(b) != "old" {
		t.Errorf("the note is %q, %v", b, err)
	}
	runtimetest.Eventually(t, "a replacement", func() bool { return strings.Contains(rt.Snapshot().String(), "incarnation 2") })
}

func TestStalled(t *testing.T) {
	faults := runtimetest.NewFaults(t)
	at = faults.At
	rt := runtimetest.Tree(t, tree(config{"127.0.0.1:0", t.TempDir()}))
	addr := rt.Listeners()[0].Addr.String()

	faults.Stall("before the rename")
	first := make(chan string)
	go func() { // ends with the answer, which is awaited below
		_, text := ask(t, "PUT", addr, "first")
		first <- text
	}()
	faults.Await("before the rename")
	expect(t, "PUT", addr, "second", 200, "write 1") // the first has no client any more
	faults.Release("before the rename")
	if text := <-first; !strings.Contains(text, "write 2") {
		t.Error(text)
	}
	expect(t, "GET", addr, "", 200, "first")
}

func TestNoDescriptors(t *testing.T) {
	rt := runtimetest.Tree(t, tree(config{"127.0.0.1:0", t.TempDir()}))
	addr := rt.Listeners()[0].Addr.String()
	was := client
	client = &http.Client{Transport: &http.Transport{}} // which keeps its connection
	defer func() {
		client.CloseIdleConnections()
		client = was
	}()
	_, text := ask(t, "PUT", addr, "hello")
	name, _, _ := strings.Cut(text, ": ") // web/0 or web/1

	restore := runtimetest.NoDescriptors(t, runtimetest.PID(t, rt, name))
	expect(t, "GET", addr, "", 503, "too many open files") // over the same connection
	restore()
	expect(t, "GET", addr, "", 200, "hello")
}

func TestProgram(t *testing.T) {
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0", "-dir", t.TempDir()) // your main, in a process of its own
	addr := p.Await(`^http://(.+)/$`)[1]                                        // a line that it prints
	expect(t, "PUT", addr, "hello", 200, "write 1")
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
