package main

import (
	"net/http"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestChaos: no job is lost while its worker is killed, each is run again for that, and those that
// kill are set aside.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes four seconds")
	}
	examplestest.Chaos(t, "-addr", "127.0.0.1:0")
}

// TestUpgrade: a job that runs while the program is replaced in place runs again to its end, one
// that was over is known, and numbers go on.
func TestUpgrade(t *testing.T) {
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0")
	url := p.Await(`^(http://\S+/)`)[1] + "jobs"
	becomes := func(id, want string) {
		t.Helper()
		re := regexp.MustCompile(want)
		runtimetest.Eventually(t, "job "+id+" to be "+want, func() bool { return re.MatchString(ask(http.Get(url + "/" + id))) })
	}
	submit := func(input, want string) {
		t.Helper()
		if got := ask(http.Post(url, "text/plain", strings.NewReader(input))); got != want {
			t.Fatalf("submitted %s: %s", input, got)
		}
	}
	submit("12", "job 1 waits or runs, attempts 0")
	becomes("1", "done, attempts 1: 144")
	submit("endless", "job 2 waits or runs, attempts 0")
	p.Signal(syscall.SIGUSR2)
	p.Await(" reloaded generation=2")
	becomes("2", "attempts [1-9]")
	becomes("1", "done, attempts 1: 144")
	submit("5", "job 3 waits or runs, attempts 0")
	becomes("3", "done, attempts 1: 25")
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
