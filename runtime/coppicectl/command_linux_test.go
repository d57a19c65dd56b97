package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

var rewrite = flag.Bool("rewrite", false, "write the goldens in testdata")

var builtIn string // the directory of built; "" = nothing was

// built builds coppicectl and examples/hello once, and returns their directory.
var built = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "ctl")
	if err != nil {
		return "", err
	}
	builtIn = dir
	for _, args := range [][]string{{"build", "-o", dir + "/coppicectl", "."}, {"-C", "../..", "build", "-o", dir + "/hello", "./examples/hello"}} {
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			return dir, fmt.Errorf("go %v: %w: %s", args, err, out)
		}
	}
	return dir, nil
})

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if builtIn != "" {
		os.RemoveAll(builtIn)
	}
	os.Exit(code)
}

// service is an examples/hello that runs.
type service struct {
	*exec.Cmd
	t      *testing.T
	socket string
	url    string
	dir    string
	dirs   []string
}

func startService(t *testing.T) *service {
	t.Helper()
	dir, err := built()
	if err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, dir: t.TempDir()}
	program := filepath.Join(s.dir, "hello") // a reload may find another there
	if err := os.Link(dir+"/hello", program); err != nil {
		t.Fatal(err)
	}
	s.Cmd = exec.Command(program, "-addr", "127.0.0.1:0")
	s.Env = append(os.Environ(), "XDG_RUNTIME_DIR="+s.dir, "COPPICE_CONTROL=auto")
	s.Stderr = io.Discard
	out, err := s.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.Process.Signal(syscall.SIGTERM) // it may have ended
		_ = s.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	go func() { _, _ = io.Copy(io.Discard, out) }() // ends with the service
	s.url, _, _ = strings.Cut(line, "/  ")
	s.dirs = []string{filepath.Join(s.dir, "coppice")}
	s.socket = fmt.Sprintf("%s/hello.%d.sock", s.dirs[0], s.Process.Pid)
	eventually(t, "the socket", func() bool { return len(trees(t.Context(), s.dirs, "")) == 1 })
	return s
}

// run runs a command line, whose exit code must be the one that is wanted.
func (s *service) run(want int, args ...string) (out, err string) {
	s.t.Helper()
	code, out, err := ctl(s.t.Context(), s.dirs, args...)
	if code != want {
		s.t.Errorf("%v: code %d, want %d\n%s%s", args, code, want, out, err)
	}
	return out, err
}

// pid returns the pid of a process of the tree.
func (s *service) pid(name string) (pid int) {
	s.t.Helper()
	out, _ := s.run(0, "ps", "-o", "json")
	var workers []worker
	if err := json.Unmarshal([]byte(out), &workers); err != nil {
		s.t.Fatal(err)
	}
	for _, w := range workers {
		if w.Name == name && w.State == "running" {
			pid = w.PID
		}
	}
	return pid
}

// kill kills a process, and waits until another has its name.
func (s *service) kill(name string) {
	s.t.Helper()
	old := s.pid(name)
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	eventually(s.t, name+" to be restarted", func() bool { pid := s.pid(name); return pid != 0 && pid != old })
}

// eventually waits until something holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.After(time.Minute); !holds(); {
		select {
		case <-deadline:
			t.Fatal("waited for " + what)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

var (
	number2 = regexp.MustCompile(`(^|[ :.(])\d+([.\d:]\d*|[a-zMhms%])[\da-zMhms%.:]*|(^| )\d\d+`)
	spaces  = regexp.MustCompile(` {2,}`)
	ids     = regexp.MustCompile(`(  running  N  N  |PID  )\d+(  \d+  \d+  |  running)`)
)

// masked replaces what differs from run to run: times, sizes, pids, ports, users, the IDs of
// workers, which start side by side, and the spaces of columns. A restart counts for 10 s.
func (s *service) masked(text string) string {
	text = strings.ReplaceAll(text, s.dirs[0], "DIR")
	text = regexp.MustCompile(fmt.Sprintf(`\b%d\b`, s.Process.Pid)).ReplaceAllString(text, "PID")
	text = number2.ReplaceAllString(text, "${1}${3}N")
	text = strings.ReplaceAll(text, "N of N restarts left, ", "")
	text = spaces.ReplaceAllString(text, "  ")
	return ids.ReplaceAllString(text, "${1}N${2}")
}

// TestGoldens: what ls, tree and ps print of a real tree.
func TestGoldens(t *testing.T) {
	s := startService(t)
	s.kill("web/0")
	for _, name := range []string{"ls", "tree", "ps"} {
		out, _ := s.run(0, name)
		file, got := filepath.Join("testdata", name+".txt"), "$ coppicectl "+name+"\n"+s.masked(out)
		if *rewrite {
			if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || got != string(want) {
			t.Errorf("got\n%swant\n%s%v", got, want, err)
		}
	}
	for _, args := range []string{"ls", "tree", "ps", "crashes", "why web/0", "stacks web/1", "loglevel", "events", "logs"} {
		out, _ := s.run(0, append(strings.Fields(args), "-o", "json")...)
		for d := json.NewDecoder(strings.NewReader(out)); ; {
			var v any
			if err := d.Decode(&v); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v in %s", args, err, out)
			}
		}
	}
}

// TestOperator: what an operator asks for in a day is done and told.
func TestOperator(t *testing.T) {
	s := startService(t)
	old := s.pid("web/0")
	for _, c := range []struct{ args, says string }{
		{"scale web 3", "done in "},
		{"reload --timeout 1m", "[4/4]\ndone in "},
		{"why reload", "the last reload, to generation 2, succeeded"},
		{"why web/0", "took the place of its predecessor"},
		{"events", "reload, user "},
		{"pause http", "done"},
		{"tree", "(paused)"},
		{"why http", "http (tcp 127.0.0.1:"},
		{"why http", "is paused: new connections wait"},
		{"why http", "an operator had asked for it "},
		{"resume http", "done"},
		{"loglevel debug", "done"},
		{"loglevel", "DEBUG"},
		{"loglevel default", "done"},
		{"stacks listener", "goroutine "},
		{"stacks master", "goroutine "},
		{"crashes", "no process has crashed"},
	} {
		if out, _ := s.run(0, strings.Fields(c.args)...); !strings.Contains(out, c.says) {
			t.Errorf("%s: it does not say %q: %s", c.args, c.says, out)
		}
	}
	eventually(t, "the new web/0", func() bool { pid := s.pid("web/0"); return pid != 0 && pid != old })
	if resp, err := http.Get(s.url + "/crash?how=panic"); err == nil {
		resp.Body.Close()
	}
	eventually(t, "the crash report", func() bool { out, _ := s.run(0, "crashes"); return strings.Contains(out, "panic: asked to panic") })
	out, _ := s.run(0, "crashes", "show")
	for _, says := range []string{"\n  build    ", "\n  event    ", "\n  after    ", "panic: asked to panic\n"} {
		if !strings.Contains(out, says) {
			t.Errorf("crashes show: it does not say %q: %s", says, out)
		}
	}
	if first, _ := s.run(0, "crashes", "show", "1"); !strings.HasPrefix(first, "crash: web/") {
		t.Errorf("crashes show 1: %s", first)
	}
	if out, _ := s.run(0, "logs", "web"); !strings.Contains(out, "g2| panic: asked to panic\n") {
		t.Errorf("logs: %s", out)
	}
	s.run(0, "logs", "listener")
	for args, says := range map[string]string{
		"logs nosuch": `nothing is kept of "nosuch", and no process or pool has that name; there are listener, master, web, web/0, web/1, web/2`,
		"kill web":    "kill web: no process of that name; its role in the tree is pool, and its workers are web/0 and so on",
	} {
		if _, err := s.run(codeFailed, strings.Fields(args)...); !strings.Contains(err, says) {
			t.Errorf("%s: it does not say %q: %s", args, says, err)
		}
	}
	for _, what := range []string{"restart", "stop", "kill"} {
		old := 0
		eventually(t, "a web/1", func() bool { old = s.pid("web/1"); return old != 0 })
		s.run(0, what, "web/1")
		eventually(t, "another web/1 after "+what, func() bool { pid := s.pid("web/1"); return pid != 0 && pid != old })
		eventually(t, "the reason of "+what, func() bool {
			out, _ := s.run(0, "why", "web/1")
			return strings.Contains(out, "an operator had asked for it ("+what+" process=web/1, user ")
		})
	}
	out, _ = s.run(0, "bundle", "-o", "-")
	names := ""
	for r := tar.NewReader(strings.NewReader(out)); ; {
		h, err := r.Next()
		if err != nil {
			break
		}
		names += h.Name + " "
	}
	if !strings.Contains(names, "tree.txt") || !strings.Contains(names, "crashes.json") {
		t.Errorf("the bundle has %s", names)
	}
}

// TestDiff: a description of what runs is the same as what runs, until that changes.
func TestDiff(t *testing.T) {
	s := startService(t)
	tree := newTree(s.socket)
	b, err := tree.text(t.Context(), "config", nil)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "tree.golden")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := s.run(0, "diff", file); out != "" {
		t.Errorf("at first: %s", out)
	}
	s.run(0, "scale", "web", "3")
	eventually(t, "the difference", func() bool {
		code, out, _ := ctl(t.Context(), s.dirs, "diff", file)
		return code == codeFailed && out == "-web.Size 2\n+web.Size 3\n"
	})
}

// TestReloadFails: a reload that fails is code 1 with the reason, and why tells it afterwards.
func TestReloadFails(t *testing.T) {
	s := startService(t)
	old := s.pid("web/0")
	if err := os.Remove(s.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path, []byte("#!/bin/sh\necho cannot open >&2\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := s.run(codeFailed, "reload")
	if !strings.Contains(out, "web/0          failed: exit code 2") || !strings.Contains(err, "reload to generation 2 failed: web/0 did not start") || !strings.Contains(err, "cannot open") || !strings.Contains(err, "next: coppicectl why reload") {
		t.Errorf("%s%s", out, err)
	}
	eventually(t, "the reason with the last line", func() bool {
		out, _ := s.run(0, "why", "reload")
		return strings.HasPrefix(out, "the last reload to generation 2 failed") && strings.Contains(out, `(its last line was "/bin/sh: `)
	})
	if now := s.pid("web/0"); now != old {
		t.Errorf("web/0 is %d, was %d", now, old)
	}
}

// TestUpgrade: an upgrade replaces the master in place and is followed over its exec to its end;
// one to a program that fails is code 1 with the reason, and what ran runs on.
func TestUpgrade(t *testing.T) {
	s := startService(t)
	old := s.pid("web/0")
	if out, _ := s.run(0, "upgrade", "--dry-run"); out != "nothing changes but the program\n" {
		t.Errorf("the plan: %s", out)
	}
	if now := s.pid("web/0"); now != old {
		t.Errorf("after the dry run web/0 is %d, was %d", now, old)
	}
	out, _ := s.run(0, "upgrade")
	if !strings.HasPrefix(out, "upgrade to the program as it is now\nreload to generation 2\n") || !strings.Contains(out, "[3/3]\ntree upgraded, ") || !strings.Contains(out, "\ndone in ") {
		t.Errorf("%s", out)
	}
	now := s.pid("web/0")
	if master := s.pid("master"); now == old || master != s.Process.Pid {
		t.Errorf("web/0 is %d, was %d; the master is %d, was %d", now, old, master, s.Process.Pid)
	}
	out, _ = s.run(0, "upgrade", "-o", "json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, `{"ok":true,"took_seconds":`) {
		t.Errorf("the last line is %s", last)
	}
	if out, _ := s.run(0, "why", "reload"); !strings.Contains(out, "the last reload, to generation 3, succeeded") {
		t.Errorf("why reload: %s", out)
	}
	now = s.pid("web/0")
	if err := os.Remove(s.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path, []byte("#!/bin/sh\nexit 3\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"upgrade"}, {"upgrade", "--dry-run"}} {
		_, err := s.run(codeFailed, args...)
		if !strings.HasPrefix(err, "coppicectl: upgrade: check: the new program ended before it answered: exit code ") || !strings.Contains(err, "the old program serves on") {
			t.Errorf("%v: %s", args, err)
		}
	}
	if again := s.pid("web/0"); again != now {
		t.Errorf("web/0 is %d, was %d", again, now)
	}
	resp, err := http.Get(s.url + "/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

// firstLine tells when something was written.
type firstLine struct {
	bytes.Buffer
	once sync.Once
	at   chan struct{}
}

func (w *firstLine) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.at) })
	return w.Buffer.Write(p)
}

// TestTreeEnds: a stream whose tree ends is code 4, and one that is interrupted 0.
func TestTreeEnds(t *testing.T) {
	s := startService(t)
	follow := func(ctx context.Context) (began chan struct{}, code chan int, err *bytes.Buffer) {
		out := &firstLine{at: make(chan struct{})}
		c, code := &command{out: out, err: new(bytes.Buffer), dirs: s.dirs}, make(chan int, 1)
		go func() { code <- c.run(ctx, []string{"events", "-f"}) }()
		return out.at, code, c.err.(*bytes.Buffer)
	}
	ctx, interrupt := context.WithCancel(t.Context())
	began, code, stderr := follow(ctx)
	<-began
	interrupt()
	if got := <-code; got != 0 {
		t.Errorf("interrupted: code %d, %s", got, stderr)
	}
	began, code, stderr = follow(t.Context())
	<-began
	if err := s.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if got := <-code; got != codeLost || !strings.Contains(stderr.String(), "has ended") {
		t.Errorf("killed: code %d, %s", got, stderr)
	}
}

// TestProfiles: a CPU profile of a worker names the handler that burns it, and those of the
// listener process and the master can be read.
func TestProfiles(t *testing.T) {
	s := startService(t)
	top := func(name string, args ...string) string {
		file := filepath.Join(t.TempDir(), "p")
		s.run(0, append([]string{"profile", name, "-o", file}, args...)...)
		out, err := exec.Command("go", "tool", "pprof", "-top", file).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", name, err, out)
		}
		return string(out)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 2 { // one for each worker, by a connection that stays
		go func() { // ends with ctx
			c := http.Client{Transport: &http.Transport{}}
			defer c.CloseIdleConnections()
			for ctx.Err() == nil {
				req, _ := http.NewRequestWithContext(ctx, "GET", s.url+"/block?ms=300", nil)
				if resp, err := c.Do(req); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}
		}()
	}
	eventually(t, "web/0 to burn", func() bool {
		out, _ := s.run(0, "ps", "-o", "json")
		var workers []worker
		return json.Unmarshal([]byte(out), &workers) == nil && slices.ContainsFunc(workers, func(w worker) bool { return w.Name == "web/0" && w.Open > 0 })
	})
	if out := top("web/0", "--cpu", "2s"); !strings.Contains(out, "Type: cpu") || !strings.Contains(out, "main.block") {
		t.Errorf("web/0: %s", out)
	}
	file := filepath.Join(t.TempDir(), "trace")
	s.run(0, "profile", "web/0", "--trace", "1s", "-o", file)
	if b, err := os.ReadFile(file); err != nil || !bytes.HasPrefix(b, []byte("go 1.")) {
		t.Errorf("a trace of %d bytes, %v", len(b), err)
	}
	for _, name := range []string{"listener", "master"} {
		if out := top(name, "--cpu", "1s"); !strings.Contains(out, "Type: cpu") {
			t.Errorf("%s: %s", name, out)
		}
		if out := top(name, "--heap"); !strings.Contains(out, "Type: inuse_space") {
			t.Errorf("%s: %s", name, out)
		}
	}
}

// TestTerminal: in a terminal tree -w shows how a worker is restarted and a reload runs, fits a
// window that changes its size, and ends by Ctrl-C with the last picture.
func TestTerminal(t *testing.T) {
	tmux, err := exec.LookPath("tmux")
	if err != nil {
		t.Skip("no tmux: apt-get install tmux")
	}
	s := startService(t)
	dir, _ := built()
	server := filepath.Join(t.TempDir(), "tmux")
	do := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(tmux, append([]string{"-S", server, "-f", "/dev/null"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("tmux %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	shown := ""
	shows := func(what string, is func(string) bool) {
		t.Helper()
		defer func() {
			if t.Failed() {
				t.Logf("the terminal shows\n%s", shown)
			}
		}()
		eventually(t, what, func() bool { shown = do("capture-pane", "-p"); return is(shown) })
	}
	contains := func(texts ...string) func(string) bool {
		return func(shown string) bool {
			for _, text := range texts {
				if !strings.Contains(shown, text) {
					return false
				}
			}
			return true
		}
	}
	do("new-session", "-d", "-x", "110", "-y", "24", fmt.Sprintf("%s/coppicectl tree -w -t %s; echo code $?; exec cat", dir, s.socket))
	t.Cleanup(func() { do("kill-server") })
	shows("the tree", contains("└─ web/1", fmt.Sprint(s.pid("web/1"))))
	s.kill("web/0")
	shows("the restart", contains("last exit: signal 9 (killed)", "web/0 restarting: attempt 1", fmt.Sprint(s.pid("web/0"))))
	s.run(0, "reload")
	shows("the reload", contains("tree reloaded, generation 2", fmt.Sprint(s.pid("web/1"))))
	do("resize-window", "-x", "16", "-y", "5")
	shows("the small window", func(shown string) bool {
		lines := strings.Split(strings.TrimSpace(shown), "\n")
		return len(lines) <= 5 && strings.HasPrefix(lines[0], "NAME") && contains("4 lines more")(shown)
	})
	do("resize-window", "-x", "140", "-y", "30")
	shows("the large window", contains("└─ web/1", "round-robin", "tree reloaded"))
	do("send-keys", "C-c")
	shows("the end", contains("└─ web/1", "code 0"))
	if strings.Contains(shown, "reloaded") {
		t.Errorf("after the end the events are still there:\n%s", shown)
	}
}

// TestServesPage: the page is served below a path that cannot be guessed, and not to other pages.
func TestServesPage(t *testing.T) {
	s := startService(t)
	r, w := io.Pipe()
	ctx, interrupt := context.WithCancel(t.Context())
	c, code := &command{out: w, err: io.Discard, dirs: s.dirs}, make(chan int, 1)
	go func() { code <- c.run(ctx, []string{"page"}) }()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	page, err := url.Parse(strings.TrimSpace(line))
	if err != nil {
		t.Fatal(err)
	}
	ask := func(method, at, origin string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		if origin != "" {
			req.Header.Set("Origin", origin)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(b)
	}
	if status, body := ask("GET", page.String(), ""); status != http.StatusOK || !strings.Contains(body, "<html") {
		t.Errorf("the page: %d %.100s", status, body)
	}
	if status, body := ask("GET", page.JoinPath("v1/tree").String(), ""); status != http.StatusOK || !strings.Contains(body, `"web/0"`) {
		t.Errorf("the tree: %d %.100s", status, body)
	}
	for _, path := range []string{"/", "/v1/tree"} {
		if status, _ := ask("GET", "http://"+page.Host+path, ""); status != http.StatusNotFound {
			t.Errorf("without the secret %s has status %d", path, status)
		}
	}
	if status, body := ask("POST", page.JoinPath("v1/reload").String(), "http://evil.example"); status != http.StatusForbidden {
		t.Errorf("a foreign page reloads: %d %.100s", status, body)
	}
	interrupt()
	if got := <-code; got != 0 {
		t.Errorf("interrupted: code %d", got)
	}
}
