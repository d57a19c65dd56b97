package main

import (
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestKill: the adopted service has what the README says: a worker is killed with
// −9 under load, and no client is refused or hangs.
func TestKill(t *testing.T) {
	addr := examplestest.Addr()
	p := runtimetest.Start(t, nil, "-addr", addr)
	const workers = 4
	var kids []int
	runtimetest.Eventually(t, "a listener process and four workers that answer", func() bool {
		kids = runtimetest.Children(t, p.PID())
		resp, err := http.Get("http://" + addr)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return len(kids) == 1+workers
	})
	c := runtimetest.Load{URL: "http://" + addr + "/you", InFlight: 8}.RunOverKills(t, p, kids[1:2])
	if c.Refused != 0 || c.Hung != 0 || c.Other != 0 || c.Cut > 8 {
		t.Errorf("%v (%v)", c, c.First)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestDiff: the difference that the README shows is that of the two programs.
func TestDiff(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	_, diff, _ := strings.Cut(read("README.md"), "```diff\n")
	diff, _, ok := strings.Cut(diff, "```")
	if !ok {
		t.Fatal("the README shows no difference")
	}
	var before, after strings.Builder
	for line := range strings.Lines(diff) {
		if line[0] != '+' {
			before.WriteString(line[1:])
		}
		if line[0] != '-' {
			after.WriteString(line[1:])
		}
	}
	for name, part := range map[string]string{"before/main.go": before.String(), "main.go": after.String()} {
		if !strings.HasSuffix(read(name), part) {
			t.Errorf("%s does not end with what the README shows of it:\n%s", name, part)
		}
	}
}
