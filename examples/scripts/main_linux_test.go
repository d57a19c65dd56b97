package main

import (
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestScripts: a script is run, and what is wrong with one is said.
func TestScripts(t *testing.T) {
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0", "-tenants", "ann,eve")
	url := p.Await(`^(http://\S+/)`)[1]
	for script, want := range map[string]string{
		`print("hello")`: "200 OK: hello",
		"for":            "422 Unprocessable Entity: script:1:",
		"while True:\n    print('x' * (16 << 10))": "422 Unprocessable Entity: Starlark computation cancelled: it prints too much",
	} {
		if status, text := post(url+"eve", script); !strings.Contains(status+": "+text, want) {
			t.Errorf("%s: %s: %s, want %q", script, status, text, want)
		}
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestChaos: each bad script of a tenant ends for its reason, one that kills twice is refused, and
// the other tenant's scripts are run meanwhile, by processes that live on.
func TestChaos(t *testing.T) {
	printed := examplestest.Chaos(t, "-addr", "127.0.0.1:0")
	has := func(pattern string) bool {
		return slices.ContainsFunc(printed, regexp.MustCompile(pattern).MatchString)
	}
	for _, want := range []string{
		"mistake .* floored division", "loop .* its time is over", "step .* its worker was killed", "step .* is quarantined, for 2 deaths",
		"memory .* 422 ", // by its memory or, on a slow machine, its time
	} {
		if !has("^eve " + want) {
			t.Errorf("nothing like %q", want)
		}
	}
	if has("exited path=master/ann/workers") || !has("exited path=master/eve/workers") {
		t.Error("want deaths of workers of eve alone")
	}
}
