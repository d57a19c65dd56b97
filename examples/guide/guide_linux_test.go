package guide_test

import (
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// client has a connection for each request.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// get returns the answer, or the error.
func get(t *testing.T, url string) (text string, err error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// step builds and starts the program of a step, and waits until it answers.
func step(t *testing.T, name string, args ...string) (p *runtimetest.Program, url string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./"+name).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	addr := examplestest.Addr()
	p = runtimetest.StartAt(t, path, nil, append(args, "-addr", addr)...)
	url = "http://" + addr
	runtimetest.Eventually(t, "an answer", func() bool { _, err := get(t, url); return err == nil })
	return p, url
}

// expect has the service answer with what matches re.
func expect(t *testing.T, url, re string) (parts []string) {
	t.Helper()
	text, err := get(t, url)
	parts = regexp.MustCompile(re).FindStringSubmatch(text)
	if err != nil || parts == nil {
		t.Fatalf("it answers %q, %v; want %s", text, err, re)
	}
	return parts
}

// crash sends the request that crashes its worker.
func crash(t *testing.T, url string) {
	t.Helper()
	if text, err := get(t, url+"/crash"); err == nil {
		t.Errorf("the request that crashes is answered: %q", text)
	}
}

// stop ends a program by SIGTERM.
func stop(t *testing.T, p *runtimetest.Program) {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestPlain: the service of one process ends by a panic.
func TestPlain(t *testing.T) {
	p, url := step(t, "plain")
	crash(t, url)
	if code := p.Wait(); code != 2 {
		t.Errorf("exit code %d", code)
	}
}

// TestWorkers: a panic costs a worker, and each counts by itself.
func TestWorkers(t *testing.T) {
	p, url := step(t, "workers")
	workers, visits := map[string]bool{}, 0
	runtimetest.Eventually(t, "an answer of each worker", func() bool {
		workers[expect(t, url, `^(workers/\d) visit \d+\n$`)[1]] = true
		visits++
		return len(workers) == 4
	})
	crash(t, url)
	p.Await(`panic: no recover helps here`)
	p.Await(`supervisor: restarting path=master/workers/\d`)
	n, err := strconv.Atoi(expect(t, url, `^workers/\d visit (\d+)\n$`)[1])
	if err != nil || n > visits {
		t.Errorf("visit %d of a worker after %d of all", n, visits)
	}
	stop(t, p)
}

// TestShared: the workers count together, through a crash too.
func TestShared(t *testing.T) {
	p, url := step(t, "shared")
	visit := func() int {
		n, err := strconv.Atoi(expect(t, url, `^web/\d visit (\d+)\n$`)[1])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := visit()
	crash(t, url)
	p.Await(`supervisor: restarting path=master/web/\d`)
	if after := visit(); after != before+1 {
		t.Errorf("visit %d before the crash, %d after it", before, after)
	}
	stop(t, p)
}

// TestCluster: workers ask the master, which tells all of them of a crash, and the next ones too.
func TestCluster(t *testing.T) {
	p, url := step(t, "cluster")
	expect(t, url, `^web/\d web request \d+ crashes 0\n$`)
	crash(t, url)
	p.Await(`web/\d ended: exit code 2: panic: no recover helps here`)
	told := func() bool { text, _ := get(t, url); return strings.HasSuffix(text, " crashes 1\n") }
	runtimetest.Eventually(t, "a worker that knows", told)
	p.Signal(syscall.SIGHUP)
	p.Await(`reloaded generation=2`)
	runtimetest.Eventually(t, "a worker of the reload that knows", told)
	stop(t, p)
}

// TestService: a reload brings the greeting, one that fails changes nothing, and a request that
// kills is refused.
func TestService(t *testing.T) {
	greeting := filepath.Join(t.TempDir(), "greeting")
	put := func(text string) {
		if err := os.WriteFile(greeting, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("hello\n")
	p, url := step(t, "service", "-greeting", greeting)
	expect(t, url, "hello")
	put("good morning\n")
	p.Signal(syscall.SIGHUP)
	p.Await(`reloaded generation=2`)
	expect(t, url, "good morning")
	put("")
	p.Signal(syscall.SIGHUP)
	p.Await(`reload failed generation=3 .*the greeting is empty`)
	expect(t, url, "good morning")
	runtimetest.Eventually(t, "a refusal", func() bool {
		text, _ := get(t, url+"/crash")
		return strings.Contains(text, "have killed the processes that served them")
	})
	expect(t, url, "good morning")
	stop(t, p)
}
