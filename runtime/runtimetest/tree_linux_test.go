package runtimetest_test

import (
	"context"
	"expvar"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// This file is what a user's test file looks like; TestAsByGoTest runs the tests whose names begin
// with TestUser, in a process of its own, and looks at what they did.

// greeter is a tree whose worker says its configuration.
func greeter(greeting string, isolation coppice.Isolation) coppice.Config {
	return coppice.Config{
		Load:              func(context.Context) ([]byte, error) { return []byte(greeting), nil },
		ListenerIsolation: isolation,
		Children:          []coppice.ChildSpec{coppice.Pool{Name: "web", Size: 1, Isolation: isolation, Worker: greet}},
	}
}

// greeters counts, in each process, the worker functions that it has run.
var greeters = expvar.NewInt("greeters")

func greet(ctx context.Context, w *coppice.Worker) error {
	greeters.Add(1)
	ln, err := w.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "%s from a child: %v", w.Config(), coppice.IsChild())
	})})
}

// expect asks the tree's one listener.
func expect(t *testing.T, rt *coppice.Runtime, want string) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + rt.Listeners()[0].Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != want {
		t.Errorf("got %q, %v; want %q", b, err, want)
	}
}

// effectsVar names the file that effect writes to.
const effectsVar = "COPPICE_TEST_EFFECTS"

// effect is what a test does that must not be done twice.
func effect(t *testing.T, what string) {
	t.Helper()
	name := os.Getenv(effectsVar)
	if name == "" {
		return
	}
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprintln(f, what)
}

func TestUserEffect(t *testing.T) { effect(t, "effect") }

func TestUserStart(t *testing.T) {
	rt, err := coppice.Start(t.Context(), greeter("hello", coppice.ProcessIsolation))
	if err != nil {
		t.Fatal(err)
	}
	effect(t, "start")
	expect(t, rt, "hello from a child: true")
	if err := rt.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
}

func TestUserParallel(t *testing.T) {
	t.Parallel()
	rt := runtimetest.Tree(t, greeter("parallel", coppice.ProcessIsolation))
	effect(t, "parallel")
	expect(t, rt, "parallel from a child: true")
}

func TestUserParallelToo(t *testing.T) {
	t.Parallel()
	rt := runtimetest.Tree(t, greeter("goroutine", coppice.GoroutineIsolation))
	effect(t, "goroutine")
	expect(t, rt, "goroutine from a child: false")
}

func TestUserSubtests(t *testing.T) {
	for _, greeting := range []string{"good day", "a/b", "a/b", "[x]|y"} { // the third is called a/b#01
		t.Run(greeting, func(t *testing.T) {
			rt := runtimetest.Tree(t, greeter(greeting, coppice.ProcessIsolation))
			effect(t, greeting)
			expect(t, rt, greeting+" from a child: true")
		})
	}
}

// TestPprof: the master serves the profiles of each process of the tree.
func TestPprof(t *testing.T) {
	rt := runtimetest.Tree(t, greeter("profiled", coppice.ProcessIsolation))
	get := func(url string) (int, string) {
		w := httptest.NewRecorder()
		rt.PprofHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, url, nil))
		return w.Code, w.Body.String()
	}
	for url, want := range map[string]string{
		"/debug/pprof/": "web/0\n",
		"/debug/pprof/goroutine?debug=1&process=web/0":  "runtimetest_test.greet",
		"/debug/pprof/goroutine?debug=1&process=master": "runtimetest_test.TestPprof",
		"/debug/pprof/trace?seconds=0&process=listener": "go 1.",
		"/debug/pprof/heap?process=web/0":               "\x1f\x8b", // gzip
		"/debug/pprof/heap?process=listener":            "\x1f\x8b",
		"/debug/pprof/heap":                             "\x1f\x8b",
		"/debug/pprof/profile?process=web/0&seconds=0":  "\x1f\x8b",
		"/debug/pprof/profile?process=master&seconds=0": "\x1f\x8b",
		"/debug/vars?process=web/0":                     `"greeters": 1`,
		"/debug/vars":                                   `"cmdline": ["` + os.Args[0],
	} {
		if code, body := get(url); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d without %q: %.200q", url, code, want, body)
		}
	}
	for _, url := range []string{"/debug/pprof/heap?process=web/7", "/debug/pprof/nonsense?process=web/0", "/debug/pprof/nonsense"} {
		if code, body := get(url); code != http.StatusNotFound {
			t.Errorf("%s: %d %q", url, code, body)
		}
	}
	long := make(chan int)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { // ends with the context
		for { // the other may be first
			w := httptest.NewRecorder()
			rt.PprofHandler().ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/debug/pprof/profile?seconds=300", nil))
			if w.Code != http.StatusServiceUnavailable || ctx.Err() != nil {
				long <- w.Code
				return
			}
		}
	}()
	runtimetest.Eventually(t, "a second profile is refused", func() bool {
		code, body := get("/debug/pprof/heap")
		return code == http.StatusServiceUnavailable && strings.Contains(body, "another profile")
	})
	cancel()
	if code := <-long; code != http.StatusOK {
		t.Errorf("the profile whose client has gone: %d", code)
	}
}

// hintVar lets TestUserUnnamed run: it fails.
const hintVar = "COPPICE_TEST_HINT"

func TestUserUnnamed(t *testing.T) {
	if os.Getenv(hintVar) == "" {
		t.Skip("is for TestAsByGoTest")
	}
	t.Run("sub", func(t *testing.T) {
		_, err := coppice.Start(t.Context(), greeter("sub", coppice.ProcessIsolation))
		t.Fatal(err)
	})
}

func BenchmarkUser(b *testing.B) {
	rt, err := coppice.Start(b.Context(), greeter("bench", coppice.ProcessIsolation))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		_ = rt.Snapshot()
	}
	if err := rt.Shutdown(context.Background()); err != nil {
		b.Fatal(err)
	}
}

// goTest runs this test binary with flags, as go test does, and returns its output and the effects.
func goTest(t *testing.T, env []string, flags ...string) (output string, effects []string, err error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "effects")
	cmd := exec.Command(os.Args[0], append([]string{"-test.paniconexit0", "-test.timeout=2m"}, flags...)...)
	cmd.Env = append(append(os.Environ(), effectsVar+"="+file), env...)
	out, err := cmd.CombinedOutput()
	b, _ := os.ReadFile(file)
	return string(out), strings.Split(strings.TrimSpace(string(b)), "\n"), err
}

// TestAsByGoTest runs tests that start trees in their own test binary, twice over, and some in
// parallel and in subtests. Each test runs once, not once more in each process of each later tree;
// no process of a tree ends in a panic; and the files of the test run are the master's.
func TestAsByGoTest(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	out, effects, err := goTest(t, nil, "-test.run=TestUser", "-test.bench=User", "-test.benchtime=10x", "-test.v=true", "-test.count=2",
		"-test.testlogfile="+log, "-test.cpuprofile="+filepath.Join(dir, "cpu"), "an-argument", "-of=this")
	if err != nil {
		t.Errorf("%v", err)
	}
	once := []string{"[x]|y", "a/b", "a/b", "effect", "good day", "goroutine", "parallel", "start"}
	want := slices.Sorted(slices.Values(append(once, once...)))
	if slices.Sort(effects); !slices.Equal(effects, want) {
		t.Errorf("the tests did %q, want %q", effects, want)
	}
	if bad := regexp.MustCompile(`(?m)^.*(panic|\| === RUN|\| (PASS|---)|exit code).*$`).FindAllString(out, -1); bad != nil {
		t.Errorf("it said %q", bad)
	}
	if b, err := os.ReadFile(log); err != nil || !strings.HasPrefix(string(b), "# test log") || !strings.Contains(string(b), "getenv "+effectsVar) {
		t.Errorf("the log of the test run is %q, %v", b, err)
	}
	if t.Failed() {
		t.Log(out)
	}
}

// TestUnnamedByGoTest: in a subtest Start cannot see the name, and says what to do.
func TestUnnamedByGoTest(t *testing.T) {
	out, _, err := goTest(t, []string{hintVar + "=1"}, "-test.run=TestUserUnnamed")
	if err == nil || !strings.Contains(out, "call runtimetest.Tree") {
		t.Errorf("%v:\n%s", err, out)
	}
}

// TestCoveredByGoTest: under go test -coverprofile the processes of a tree leave the profile alone,
// and add what they ran to the counters that it is made of.
func TestCoveredByGoTest(t *testing.T) {
	if testing.CoverMode() == "" {
		t.Skip("run it with -coverprofile: this test binary is not built for it")
	}
	dir := t.TempDir()
	profile, counters := filepath.Join(dir, "profile"), filepath.Join(dir, "counters") // go test gives both
	if err := os.Mkdir(counters, 0o700); err != nil {
		t.Fatal(err)
	}
	out, _, err := goTest(t, []string{"GOCOVERDIR=" + counters}, "-test.run=TestUserStart",
		"-test.coverprofile="+profile, "-test.gocoverdir="+counters)
	b, rerr := os.ReadFile(profile)
	files, gerr := filepath.Glob(filepath.Join(counters, "covcounters.*"))
	if err != nil || rerr != nil || gerr != nil || len(b) == 0 || strings.Contains(out, "warning: GOCOVERDIR") {
		t.Errorf("%v, %v, %v:\n%s%s", err, rerr, gerr, out, b)
	}
	if len(files) != 3 {
		t.Errorf("%q have counters; want those of master, listener process and worker", files)
	}
}
