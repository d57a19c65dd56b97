package main

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

type service struct {
	t      *testing.T
	p      *runtimetest.Program
	url    string
	client *http.Client
}

func start(t *testing.T, args ...string) *service {
	p := runtimetest.Start(t, nil, append([]string{"-addr", "127.0.0.1:0"}, args...)...)
	return &service{t, p, p.Await(`^(http://\S+)/  master pid (\d+)$`)[1], &http.Client{
		Timeout:   20 * time.Second,
		Transport: &http.Transport{DisableKeepAlives: true}, // each request to the next worker
	}}
}

// do makes a request again while it is cut off by a kill, and returns the body.
func (s *service) do(method, path, body string) (int, string, http.Header) {
	s.t.Helper()
	for try := 0; ; try++ {
		req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
		if err != nil {
			s.t.Fatal(err)
		}
		res, err := s.client.Do(req)
		if err == nil {
			var b []byte
			b, err = io.ReadAll(res.Body)
			res.Body.Close()
			if err == nil {
				return res.StatusCode, strings.TrimSuffix(string(b), "\n"), res.Header
			}
		}
		if try == 20 {
			s.t.Fatal(err)
		}
	}
}

func (s *service) put(key, value string) {
	s.t.Helper()
	if code, body, _ := s.do(http.MethodPut, "/s/"+key, value); code != http.StatusOK {
		s.t.Fatalf("put %s: %d %s", key, code, body)
	}
}

// check asks for all sessions, of every worker in turn.
func (s *service) check(want map[string]string) (workers map[string]bool) {
	s.t.Helper()
	workers = map[string]bool{}
	for key, value := range want {
		code, body, header := s.do(http.MethodGet, "/s/"+key, "")
		if code != http.StatusOK || body != value {
			s.t.Fatalf("%s is %d %q of %s, want %q", key, code, body, header.Get("Keepers"), value)
		}
		workers[header.Get("Worker")] = true
	}
	return workers
}

// indexLine is what the index says of a worker.
var indexLine = regexp.MustCompile(`(web/\d) pid (\d+): (\d+) sessions`)

// Each worker is killed with -9 in turn: no session is lost or older than it was,
// any worker answers for all, and the replacement has its sessions from siblings.
func TestSessionsSurviveAKill(t *testing.T) {
	s := start(t)
	want := map[string]string{}
	for i := range 60 {
		key := fmt.Sprint("user", i)
		want[key] = fmt.Sprint("first ", i)
		s.put(key, want[key])
	}
	if workers := s.check(want); len(workers) != 4 {
		t.Errorf("answered by %v, want all four", workers)
	}
	if code, _, _ := s.do(http.MethodGet, "/s/nobody", ""); code != http.StatusNotFound {
		t.Errorf("an unknown session is %d", code)
	}
	_, index, _ := s.do(http.MethodGet, "/", "")
	copied := 0
	for _, m := range indexLine.FindAllStringSubmatch(index, -1) {
		n, _ := strconv.Atoi(m[3])
		copied += n
	}
	if copied != 2*len(want) {
		t.Errorf("%d copies of %d sessions: %s", copied, len(want), index)
	}
	for round := range 4 {
		name := fmt.Sprint("web/", round)
		kill(s, name)
		// Written while it is away, and when it is back.
		for i := round; i < 60; i += 7 {
			key := fmt.Sprint("user", i)
			want[key] = fmt.Sprint("round ", round, " of ", i)
			s.put(key, want[key])
		}
		s.check(want)
		s.p.Await(`(?m)` + name + ` restored \d+ sessions`)
		runtimetest.Eventually(t, name+" has its name again", func() bool {
			_, index, _ := s.do(http.MethodGet, "/", "")
			return strings.Contains(index, name+" ")
		})
		s.check(want)
	}
	s.p.Signal(syscall.SIGTERM)
	if code := s.p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// kill kills the worker of a name.
func kill(s *service, name string) {
	s.t.Helper()
	_, index, _ := s.do(http.MethodGet, "/", "")
	pid := 0
	for _, m := range indexLine.FindAllStringSubmatch(index, -1) {
		if m[1] == name {
			pid, _ = strconv.Atoi(m[2])
		}
	}
	if pid == 0 {
		s.t.Fatalf("no %s in %s", name, index)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
}

// The same program as goroutines of one process.
func TestSessionsAsGoroutines(t *testing.T) {
	s := start(t, "-isolation", "goroutine")
	want := map[string]string{}
	for i := range 20 {
		key := fmt.Sprint("user", i)
		want[key] = fmt.Sprint("value ", i)
		s.put(key, want[key])
	}
	s.check(want)
	s.p.Signal(syscall.SIGTERM)
	if code := s.p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestChaos: the program harms itself, and loses nothing that it should not.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes two seconds")
	}
	examplestest.Chaos(t, "-addr", "127.0.0.1:0")
}
