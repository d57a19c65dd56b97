package main

import (
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestBadScripts: each bad script of a tenant ends for its reason, one that kills twice is refused,
// and the other tenant's scripts are run meanwhile, by processes that live on.
func TestBadScripts(t *testing.T) {
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0", "-tenants", "ann,eve")
	url := p.Await(`^(http://\S+/)`)[1]
	eve := func(script, want string) {
		t.Helper()
		if status, text := post(url+"eve", script); !strings.Contains(status+": "+text, want) {
			t.Errorf("%s: %s: %s, want %q", script, status, text, want)
		}
	}
	scripts := map[string]string{}
	for _, b := range bad {
		scripts[b.name] = b.script
	}
	eve(`print("hello")`, "200 OK: hello")
	eve(scripts["mistake"], "422 Unprocessable Entity: floored division by zero")
	eve("for", "422 Unprocessable Entity: script:1:")
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		eve(scripts["step"], "its worker was killed")
		if !testing.Short() {
			eve(scripts["step"], "its worker was killed")
			eve(scripts["step"], "is quarantined, for 2 deaths")
			eve(scripts["loop"], "its time is over")
			eve(scripts["memory"], "422") // by its memory or, on a slow machine, its time
		}
		eve(`print("again")`, "200 OK: again")
	}()
	for n, running := 0, true; running || n == 0; n++ {
		if status, text := post(url+"ann", `print("ann")`); status != "200 OK" || text != "ann" {
			t.Errorf("ann: %s: %s", status, text)
		}
		select {
		case <-ended:
			running = false
		default:
		}
	}
	for _, line := range p.Lines() {
		if strings.Contains(line, "path=master/ann/workers") && strings.Contains(line, "exited") {
			t.Error("a worker of ann:", line)
		}
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
