//go:build linux

package coppice_test

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/internal/control"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

const controlVar = "COPPICE_TEST_CONTROL"

func init() {
	controlled := func() coppice.Config {
		cfg := pool(2, func(ctx context.Context, w *coppice.Worker) error {
			fmt.Println("hello from", w.Name())
			if _, err := w.System().Spawn(ctx, "till", func() actor.Actor { return till{} }); err != nil {
				return err
			}
			ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0"})
			if err != nil {
				return err
			}
			return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				fmt.Fprint(rw, os.Getpid())
			})})
		})
		cfg.Control.Path = os.Getenv(controlVar)
		return cfg
	}
	trees["controlled"] = controlled
	trees["looked at"] = func() coppice.Config {
		cfg := controlled()
		cfg.Control.ReadOnly = true
		return cfg
	}
}

// till is an actor of a worker that shows its state.
type till struct{}

func (till) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(string); ok {
		ctx.Respond("thanks")
	}
}

func (till) Inspect() any { return "three coins" }

// operator is a client of the control endpoint of a tree.
type operator struct {
	t *testing.T
	*http.Client
}

// newOperator sets the path of the endpoint for trees to come.
func newOperator(t *testing.T) operator {
	path := filepath.Join(t.TempDir(), "tree.sock")
	t.Setenv(controlVar, path)
	to := control.Transport(path)
	to.DisableKeepAlives = true
	return operator{t, &http.Client{Transport: to}}
}

// do sends a request and returns the status and the body.
func (o operator) do(method, path string) (int, string) {
	o.t.Helper()
	req, err := http.NewRequestWithContext(o.t.Context(), method, "http://tree/v1/"+path, nil)
	if err != nil {
		o.t.Fatal(err)
	}
	resp, err := o.Do(req)
	if err != nil {
		o.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		o.t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// get decodes the JSON at a path.
func (o operator) get(path string, v any) {
	o.t.Helper()
	if status, body := o.do("GET", path); status != http.StatusOK {
		o.t.Fatalf("%s: %d %s", path, status, body)
	} else if err := json.Unmarshal([]byte(body), v); err != nil {
		o.t.Fatalf("%s: %v in %s", path, err, body)
	}
}

type controlEvent struct {
	Cursor           uint64
	Kind, Path, Text string
	PID              int
}

// TestControlReads: each path answers, with what is true of the tree.
func TestControlReads(t *testing.T) {
	o := newOperator(t)
	inBoth(t, func(t *testing.T) {
		p := startTree(t, "controlled")
		o := operator{t, o.Client}
		var about struct{ PID, API, Generation int }
		if o.get("", &about); about.PID != os.Getpid() || about.API != 1 || about.Generation != 1 {
			t.Errorf("%+v", about)
		}
		var tree coppice.Tree
		if o.get("tree", &tree); tree.String() != p.Snapshot().String() {
			t.Errorf("the tree is\n%swant\n%s", tree, p.Snapshot())
		}
		if _, text := o.do("GET", "tree?format=text"); text != p.Snapshot().String() {
			t.Errorf("as text the tree is\n%s", text)
		}
		addr := p.Listeners()[0].Addr.String()
		get(t, addr)
		runtimetest.Eventually(t, "the connection to be counted", func() bool {
			var listeners []struct {
				Address string
				Counts  struct{ Claimed int }
			}
			o.get("listeners", &listeners)
			return len(listeners) == 1 && listeners[0].Address == addr && listeners[0].Counts.Claimed == 1
		})
		var workers []struct {
			Name, Role  string
			PID         int
			Memory      int64 `json:"memory_bytes"`
			Connections int   `json:"connections_claimed"`
			Requests    int
		}
		o.get("workers", &workers)
		var names []string
		claimed := 0
		for _, w := range workers {
			names = append(names, w.Name)
			claimed += w.Connections
			if w.PID != 0 && w.Memory == 0 {
				t.Errorf("no memory: %+v", w)
			}
		}
		if want := []string{"master", "listener", "web/0", "web/1"}; !slices.Equal(names, want) || claimed != 1 {
			t.Errorf("workers %v, %d connections", names, claimed)
		}
		runtimetest.Eventually(t, "the request to be counted", func() bool { // by the next heartbeat
			o.get("workers", &workers)
			requests := 0
			for _, w := range workers {
				requests += w.Requests
			}
			return requests == 1
		})
		var actors []struct{ Path string }
		if o.get("actors", &actors); len(actors) == 0 || actors[0].Path != "report" {
			t.Errorf("actors %+v", actors)
		}
		if status, body := o.do("GET", "actors/state?actor=report"); status != http.StatusNotImplemented {
			t.Errorf("the state of an actor without the method: %d %s", status, body)
		}
		if status, body := o.do("GET", "actors/messages?actor=report&seconds=1"); status != http.StatusOK || body != "[]\n" {
			t.Errorf("the messages of an idle actor: %d %s", status, body)
		}
		actors = nil
		if o.get("actors?process=web/1", &actors); !slices.ContainsFunc(actors, func(a struct{ Path string }) bool { return a.Path == "till" }) {
			t.Errorf("actors of a worker %+v", actors)
		}
		if status, body := o.do("GET", "actors/state?process=web/1&actor=till"); status != http.StatusOK || body != "{\"state\":\"three coins\",\"value\":\"three coins\"}\n" {
			t.Errorf("the state of a worker's actor: %d %s", status, body)
		}
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() { // the count begins some time after the request
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					_, _ = p.System().Ask(t.Context(), p.Lookup("web/1/till"), "coin") // the answer paces it
				}
			}
		}()
		if status, body := o.do("GET", "actors/messages?process=web/1&actor=till&seconds=1"); status != http.StatusOK || !strings.Contains(body, `{"type":"string","count":`) {
			t.Errorf("the messages of a worker's actor: %d %s", status, body)
		}
		close(stop)
		<-stopped
		if _, text := o.do("GET", "stacks?process=web/1"); !strings.HasPrefix(text, "goroutine ") {
			t.Errorf("stacks %.100s", text)
		}
		if status, text := o.do("GET", "pprof/goroutine?process=web/0&debug=1"); status != http.StatusOK || !strings.HasPrefix(text, "goroutine profile") {
			t.Errorf("profile: %d %.100s", status, text)
		}
		for path, want := range map[string]int{
			"stacks?process=web/7": 404, "actors/state?actor=x": 404, "actors/messages?actor=x": 404,
			"actors?process=web/7": 404, "actors/state?process=web/1&actor=x": 404, "actors/messages?process=web/1&actor=x": 404, "nothing": 404, "events?after=x": 400, "actors/state?process=web/1&actor=" + strings.Repeat("x", 5000): 400, "crashes?n=0": 400, "metrics": 501,
		} {
			if status, body := o.do("GET", path); status != want || !strings.Contains(body, `"error":"`) {
				t.Errorf("%s: %d %s, want status %d", path, status, body, want)
			}
		}
		resp, err := o.Get("http://tree/v1/bundle")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		files := map[string]bool{}
		for tr := tar.NewReader(resp.Body); ; {
			h, err := tr.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			files[h.Name[strings.IndexByte(h.Name, '/')+1:]] = h.Size > 0
		}
		for _, want := range []string{"tree.txt", "tree.json", "workers.json", "events.json", "crashes.json", "logs.json", "about.json", "stacks/master.txt"} {
			if !files[want] {
				t.Errorf("the bundle has no %s: %v", want, files)
			}
		}
	})
}

// TestControlEvents: a client that comes again with the cursor of the last event that it got has
// missed none, and a stream shows what happens.
func TestControlEvents(t *testing.T) {
	o := newOperator(t)
	p := startTree(t, "controlled")
	var kept []controlEvent
	o.get("events", &kept)
	if len(kept) == 0 || kept[0].Cursor != 1 {
		t.Fatalf("%+v", kept)
	}
	last := kept[len(kept)-1].Cursor
	pid := p.processes()["web/0"]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	resp, err := o.Get(fmt.Sprintf("http://tree/v1/events?follow=1&after=%d", last))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var kinds []string
	for lines := bufio.NewScanner(resp.Body); !slices.Contains(kinds, "started") && lines.Scan(); {
		data, ok := strings.CutPrefix(lines.Text(), "data: ")
		if !ok {
			continue
		}
		var ev controlEvent
		if err := json.Unmarshal([]byte(data), &ev); err != nil {
			t.Fatal(err)
		}
		if last++; ev.Cursor != last {
			t.Errorf("event %d comes after %d", ev.Cursor, last-1)
		}
		kinds = append(kinds, ev.Kind)
	}
	if i := slices.Index(kinds, "exited"); i < 0 || !slices.Contains(kinds[i:], "restarting") {
		t.Errorf("events %v", kinds)
	}
	var crashes []struct {
		Name   string
		Reason struct{ Text string }
	}
	if o.get("crashes", &crashes); len(crashes) != 1 || crashes[0].Name != "web/0" || crashes[0].Reason.Text != "signal 9 (killed)" {
		t.Errorf("crashes %+v", crashes)
	}
	var lines []struct{ Text, Name string }
	runtimetest.Eventually(t, "the line of the replacement", func() bool { o.get("logs?process=web/0", &lines); return len(lines) == 2 })
	if lines[0].Text != "hello from web/0" || lines[1].Name != "web/0" {
		t.Errorf("lines %+v", lines)
	}
}

// TestControlWrites: what an operator asks for is done, with its progress, and the events say who
// asked.
func TestControlWrites(t *testing.T) {
	o := newOperator(t)
	p := startTree(t, "controlled")
	before := p.processes()
	for path, want := range map[string]int{
		"scale?pool=web&size=3": 200, "scale?pool=web&size=x": 400, "scale?pool=web&size=0": 400, "pause?listener=nothing": 404,
		"loglevel?level=loud": 400, "reload?timeout=soon": 400,
	} {
		if status, body := o.do("POST", path); status != want {
			t.Errorf("%s: %d %s, want status %d", path, status, body, want)
		}
	}
	if _, body := o.do("GET", "tree?format=text"); !strings.Contains(body, "web/2") {
		t.Errorf("after the scaling\n%s", body)
	}
	if status, body := o.do("POST", "pause?listener=http"); status != 200 || !p.Listeners()[0].Paused {
		t.Errorf("pause: %d %s", status, body)
	}
	if status, body := o.do("POST", "resume?listener=http"); status != 200 || p.Listeners()[0].Paused {
		t.Errorf("resume: %d %s", status, body)
	}
	for _, what := range []string{"restart", "stop", "kill"} {
		was := p.processes()["web/1"]
		if status, body := o.do("POST", what+"?process=web/1"); status != 200 {
			t.Errorf("%s: %d %s", what, status, body)
		}
		runtimetest.Eventually(t, "another web/1", func() bool { now := p.processes()["web/1"]; return now != 0 && now != was })
		if status, body := o.do("POST", what+"?process=web/9"); status != 404 {
			t.Errorf("%s of none: %d %s", what, status, body)
		}
	}
	if _, text := o.do("GET", "config"); !strings.Contains(text, "\nweb.Size 3\n") {
		t.Errorf("after the scaling the configuration is\n%s", text)
	}
	status, body := o.do("POST", "reload?follow=1")
	if status != 200 || !strings.Contains(body, `"kind":"replaced"`) || !strings.Contains(body, "event: done\ndata: {\"ok\":true") {
		t.Errorf("reload: %d %s", status, body)
	}
	if _, body := o.do("POST", "scale?pool=nix&size=1&follow=1"); !strings.Contains(body, `{"ok":false,"status":404,"error":"`) {
		t.Errorf("scale of no pool: %s", body)
	}
	if after := p.processes(); after["web/0"] == before["web/0"] || after["web/0"] == 0 {
		t.Errorf("after the reload %v, before %v", after, before)
	}
	var events []controlEvent
	o.get("events", &events)
	if who := fmt.Sprintf("(reload, user %d, pid %d)", os.Getuid(), os.Getpid()); !slices.ContainsFunc(events, func(e controlEvent) bool { return strings.Contains(e.Text, who) }) {
		t.Errorf("no event tells that %s", who)
	}
}

// TestControlTellsInOrder: when something is done, its events have come. A worker that has ended
// can be replaced at once, and the time since which one runs is its own.
func TestControlTellsInOrder(t *testing.T) {
	o := newOperator(t)
	p := startTree(t, "controlled")
	for range 3 {
		was := time.Now()
		status, body := o.do("POST", "reload?follow=1")
		reloaded := strings.LastIndex(body, `"kind":"tree reloaded"`)
		if status != 200 || reloaded < 0 || strings.LastIndex(body, `"kind":"replaced"`) > reloaded || strings.LastIndex(body, `"kind":"reloaded"`) > reloaded {
			t.Errorf("reload: %d %s", status, body)
		}
		if since := p.slots()["web/0"].Since; since.Before(was) {
			t.Errorf("web/0 runs since %v, and was replaced after %v", since, was)
		}
		status, body = o.do("POST", "kill?process=web/0&follow=1")
		if exited := strings.Index(body, `"kind":"exited"`); status != 200 || exited < 0 || exited > strings.Index(body, "event: done") {
			t.Errorf("kill: %d %s", status, body)
		}
		if status, body := o.do("POST", "restart?process=web/0"); status != 200 {
			t.Errorf("restart of one that has just ended: %d %s", status, body)
		}
	}
}

// TestControlComesWithTheTree: the endpoint is opened when there is a tree to show and to steer:
// after Config.Load.
func TestControlComesWithTheTree(t *testing.T) {
	o := newOperator(t)
	startTree(t, "early")
	if early.Load() {
		t.Error("there is an endpoint while Config.Load runs")
	}
	if status, body := o.do("POST", "reload?follow=1"); status != 200 || !strings.Contains(body, `{"ok":true`) {
		t.Errorf("%d %s", status, body)
	}
}

var early atomic.Bool

func init() {
	trees["early"] = func() coppice.Config {
		cfg := trees["controlled"]()
		first := true
		cfg.Load = func(context.Context) ([]byte, error) {
			if first {
				_, err := os.Stat(cfg.Control.Path)
				early.Store(err == nil)
			}
			first = false
			return nil, nil
		}
		return cfg
	}
}

// TestControlReadOnly: a read-only endpoint changes nothing, and takes no profile.
func TestControlReadOnly(t *testing.T) {
	o := newOperator(t)
	startTree(t, "looked at")
	for _, path := range []string{"POST scale?pool=web&size=3", "POST reload", "POST upgrade", "POST upgrade/check", "GET pprof/profile?seconds=1", "GET bundle"} {
		method, path, _ := strings.Cut(path, " ")
		if status, body := o.do(method, path); status != http.StatusForbidden || !strings.Contains(body, "read-only") {
			t.Errorf("%s %s: %d %s", method, path, status, body)
		}
	}
	var tree coppice.Tree
	o.get("tree", &tree)
}

// TestControlPathTaken: a path that cannot be used costs a line of the log, and the tree runs.
func TestControlPathTaken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(controlVar, path)
	p := startTree(t, "controlled")
	get(t, p.Listeners()[0].Addr.String())
	if b, err := os.ReadFile(path); string(b) != "mine" {
		t.Errorf("the file has %q, %v", b, err)
	}
}

// TestControlFromAWorker: a worker cannot use the endpoint, nor can a process that it starts.
func TestControlFromAWorker(t *testing.T) {
	t.Setenv("COPPICE_CONTROL", filepath.Join(t.TempDir(), "tree.sock"))
	p := startTree(t, "steered from a worker")
	if got := get(t, p.Listeners()[0].Addr.String()); got != "403" {
		t.Errorf("a worker got %s", got)
	}
}

func init() {
	trees["steered from a worker"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			ln, err := w.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return err
			}
			return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				c := http.Client{Transport: control.Transport(os.Getenv(control.Variable))}
				resp, err := c.Get("http://tree/v1/")
				if err != nil {
					fmt.Fprint(rw, err)
					return
				}
				defer resp.Body.Close()
				fmt.Fprint(rw, resp.StatusCode)
			})})
		})
	}
}
