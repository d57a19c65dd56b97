package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serve lets a handler answer at a socket, as a tree would, until the test closes the server.
func serve(t *testing.T, dir, name string, h http.HandlerFunc) *http.Server {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(ln) }() // ends with Close
	t.Cleanup(func() { s.Close() })
	return s
}

func says(program string, pid int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"program":%q,"pid":%d,"state":"running"}`, program, pid)
	}
}

// ctl runs a command line, and returns its exit code and what it has printed.
func ctl(ctx context.Context, dirs []string, args ...string) (code int, out, err string) {
	var o, e bytes.Buffer
	c := &command{out: &o, err: &e, dirs: dirs}
	code = c.run(ctx, args)
	return code, o.String(), e.String()
}

// socketDirectory returns a directory as a tree makes it.
func socketDirectory(t *testing.T) string {
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestPick: the only tree is meant, of several the one that is named; sockets of ended trees, and
// directories that others can change, count for nothing.
func TestPick(t *testing.T) {
	dir, open := socketDirectory(t), socketDirectory(t)
	dirs := []string{filepath.Join(dir, "missing"), dir, open, dir}
	check := func(want int, says string, args ...string) {
		t.Helper()
		code, out, err := ctl(t.Context(), dirs, args...)
		if code != want || !strings.Contains(out+err, says) {
			t.Errorf("%q: code %d, want %d\n%s%s", args, code, want, out, err)
		}
		if code != 0 && !strings.Contains(err, "next: ") {
			t.Errorf("%q: the error does not say what to do next: %s", args, err)
		}
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	serve(t, open, "evil.1.sock", says("evil", 1))
	stale, err := net.Listen("unix", filepath.Join(dir, "old.5.sock"))
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	stale.Close()
	check(codeNoTree, "no tree of this user runs here", "loglevel")
	check(codeNoTree, "no tree of this user runs here", "ls")
	check(0, "[]", "ls", "-o", "json")
	serve(t, dir, "shop.10.sock", says("shop", 10))
	check(0, "default", "loglevel")
	check(codeNoTree, `no tree "nix"`, "loglevel", "-t", "nix")
	check(codeNoTree, "no tree listens", "loglevel", "-t", filepath.Join(dir, "old.5.sock"))
	serve(t, dir, "shop.11.sock", says("shop", 11))
	serve(t, dir, "mail.12.sock", says("mail", 12))
	check(codeUsage, "3 trees run here: mail (pid 12), shop (pid 10), shop (pid 11)", "loglevel")
	check(codeUsage, "2 trees", "loglevel", "-t", "shop")
	check(0, "default", "loglevel", "--tree", "11")
	check(0, "default", "loglevel", "-t", filepath.Join(dir, "shop.10.sock"))
	check(0, "shop.11.sock", "ls")
	serve(t, dir, "hung.13.sock", func(http.ResponseWriter, *http.Request) { t.Error("a tree that is not meant is asked") })
	check(0, "default", "loglevel", "-t", "mail")
}

// TestUsage: a command line that cannot be used is code 2.
func TestUsage(t *testing.T) {
	dir := socketDirectory(t)
	serve(t, dir, "shop.10.sock", says("shop", 10))
	for _, args := range []string{"nix", "ps --nix", "ps more", "why", "scale web", "ps -o xml", "profile web/0 --cpu 1s --heap", "profile web/0 --kind nix", "profile web/0 --cpu 1h", "reload --wait=false", "diff /missing"} {
		if code, _, err := ctl(t.Context(), []string{dir}, strings.Fields(args)...); code != codeUsage || !strings.Contains(err, "next: ") {
			t.Errorf("%s: code %d, %s", args, code, err)
		}
	}
	for _, args := range []string{"", "help", "help profile", "completion bash", "ps --help"} {
		if code, out, err := ctl(t.Context(), []string{dir}, strings.Fields(args)...); code != 0 || out == "" {
			t.Errorf("%s: code %d, %s", args, code, err)
		}
	}
}

// TestHostileStacks: what a process sends as its stacks cannot steer the terminal.
func TestHostileStacks(t *testing.T) {
	dir := socketDirectory(t)
	serve(t, dir, "shop.10.sock", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/" {
			says("shop", 10)(w, r)
			return
		}
		fmt.Fprint(w, "goroutine 1:\n\tmain.go:1\x1b[2J\x9b\n")
	})
	if _, out, _ := ctl(t.Context(), []string{dir}, "stacks", "web/0"); out != "goroutine 1:\n\tmain.go:1?[2J?\n" {
		t.Errorf("%q", out)
	}
}

// TestErrors: the endpoint's errors are told, each with what to do next.
func TestErrors(t *testing.T) {
	for status, next := range map[int]string{400: "--help", 403: "read-only", 404: "coppicectl ps", 409: "coppicectl why", 501: "does not have that", 503: "again", 504: "--timeout"} {
		dir := socketDirectory(t)
		serve(t, dir, "shop.10.sock", func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/v1/":
				says("shop", 10)(w, r)
			case "/v1/workers":
				fmt.Fprint(w, "[]")
			case "/v1/scale": // of a stream the status is in the last message
				fmt.Fprintf(w, "event: done\ndata: {\"ok\":false,\"status\":%d,\"error\":\"coppice: because\"}\n\n", status)
			default:
				w.WriteHeader(status)
				fmt.Fprintf(w, `{"status":%d,"error":"coppice: because"}`, status)
			}
		})
		for _, args := range []string{"stacks web/0", "scale web 2", "reload"} {
			code, _, err := ctl(t.Context(), []string{dir}, strings.Fields(args)...)
			want := codeFailed
			if status == 400 {
				want = codeUsage
			}
			if code != want || !strings.Contains(err, "coppicectl: because\n  next: ") || !strings.Contains(err, next) {
				t.Errorf("%s, status %d: code %d, %s", args, status, code, err)
			}
		}
	}
}

// TestFollowGoesOn: coppicectl asks again for a stream that breaks, from the last cursor on, says
// what was lost, and ends with code 4 when the tree has ended.
func TestFollowGoesOn(t *testing.T) {
	dir := socketDirectory(t)
	over, asked := make(chan bool, 1), make(chan string, 3)
	s := serve(t, dir, "shop.10.sock", func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/":
			says("shop", 10)(w, r)
		case r.Header.Get("Accept") == "":
			fmt.Fprint(w, `[{"cursor":1,"text":"one"},{"cursor":2,"text":"two"}]`)
		default:
			asked <- r.Header.Get("Last-Event-ID")
			switch len(asked) {
			case 1:
				fmt.Fprint(w, "event: event\nid: 3\ndata: {\"cursor\":3,\"text\":\"three\"}\n\ndata: {\"cut off")
			case 2:
				fmt.Fprint(w, "event: event\nid: 9\ndata: {\"cursor\":9,\"lost\":5,\"text\":\"nine\"}\n\n")
			default:
				over <- true
				<-r.Context().Done()
			}
		}
	})
	go func() { // ends with the third request
		<-over
		s.Close()
	}()
	code, out, err := ctl(t.Context(), []string{dir}, "events", "-f", "-n", "1")
	var texts []string
	for line := range strings.Lines(out) {
		texts = append(texts, strings.TrimSpace(line[strings.IndexByte(line, ' '):]))
	}
	if got, want := strings.Join(texts, "|"), "two|three|5 events lost: they are no longer kept|nine"; code != codeLost || got != want {
		t.Errorf("code %d, %q, want %q\n%s", code, got, want, err)
	}
	close(asked)
	ids := ""
	for id := range asked {
		ids += id + " "
	}
	if ids != "2 3 9 " {
		t.Errorf("asked for what comes after %s", ids)
	}
	if !strings.Contains(err, "shop (pid 10) has ended") {
		t.Error(err)
	}
}

// TestWriteLost: a write whose connection breaks before the end is code 4.
func TestWriteLost(t *testing.T) {
	dir := socketDirectory(t)
	serve(t, dir, "shop.10.sock", func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			fmt.Fprint(w, "event: event\nid: 1\ndata: {\"kind\":\"tree reloading\",\"generation\":2}\n\n")
		} else if r.URL.Path == "/v1/workers" {
			fmt.Fprint(w, "[]")
		} else {
			says("shop", 10)(w, r)
		}
	})
	if code, out, err := ctl(t.Context(), []string{dir}, "reload"); code != codeLost || out != "reload to generation 2\n" {
		t.Errorf("code %d, %s%s", code, out, err)
	}
}

// TestCutOff: an answer that breaks is code 4, whether it is a stream of a change, of events, or a
// file, and what is left of a file is removed; a file that cannot be written is code 1.
func TestCutOff(t *testing.T) {
	dir := socketDirectory(t)
	t.Chdir(t.TempDir())
	whole := false
	serve(t, dir, "shop.10.sock", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/":
			says("../shop", 10)(w, r)
		case "/v1/workers":
			fmt.Fprint(w, "[]")
		default:
			fmt.Fprint(w, "event: event\nid: 1\ndata: {\"kind\":\"tree reloading\",\"generation\":2}\n\n")
			if !whole {
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			}
		}
	}).ErrorLog = log.New(io.Discard, "", 0)
	for _, device := range []string{"null", "full"} { // by links, which may be lost
		if err := os.Symlink("/dev/"+device, device); err != nil {
			t.Fatal(err)
		}
	}
	check := func(want int, args string) {
		t.Helper()
		code, _, err := ctl(t.Context(), []string{dir}, strings.Fields(args)...)
		if code != want || (code != 0) != strings.Contains(err, "next: ") {
			t.Errorf("%s: code %d, want %d\n%s", args, code, want, err)
		}
	}
	for _, args := range []string{"reload", "scale web 2", "stacks web/0", "bundle", "bundle -o file", "bundle -o -", "profile web/0 --heap", "bundle -o null"} {
		check(codeLost, args)
	}
	left := func() string {
		names, _ := filepath.Glob("*")
		return strings.Join(names, " ")
	}
	if left() != "full null" {
		t.Errorf("left are %s", left())
	}
	whole = true
	check(0, "bundle")
	check(codeFailed, "bundle -o missing/file")
	if _, err := os.Stat("full"); err == nil {
		check(codeFailed, "bundle -o full")
	}
	if !strings.HasPrefix(left(), "..-shop.") || !strings.HasSuffix(left(), ".bundle.tar full null") {
		t.Errorf("left are %s", left())
	}
}

// TestWatchInAStorm: events that come without end do not keep the watched tree from being drawn, and
// it ends with code 4 when the tree does.
func TestWatchInAStorm(t *testing.T) {
	dir := socketDirectory(t)
	looks, over := make(chan bool, 100), make(chan bool)
	s := serve(t, dir, "shop.10.sock", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v1/":
			says("shop", 10)(w, r)
		case "/v1/workers":
			fmt.Fprint(w, "[]")
		case "/v1/tree":
			fmt.Fprint(w, `{"name":"master","state":"running"}`)
			looks <- true
		case "/v1/events":
			<-looks
			for i := 1; ; i++ {
				fmt.Fprintf(w, "event: event\nid: %d\ndata: {\"cursor\":%d}\n\n", i, i)
				if http.NewResponseController(w).Flush() != nil {
					return
				}
				select {
				case <-looks:
					close(over)
					return
				default:
				}
			}
		}
	})
	go func() { // ends with the second look
		<-over
		s.Close()
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if code, out, err := ctl(ctx, []string{dir}, "tree", "-w"); code != codeLost || !strings.Contains(out, "master") {
		t.Errorf("code %d, want %d\n%s%s", code, codeLost, out, err)
	}
}
