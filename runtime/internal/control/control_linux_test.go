package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// connectVar has the path of a socket to which the test binary connects, as a peer of the test. It
// prints what it gets. leaveVar says what it leaves first.
const (
	connectVar = "CONTROL_TEST_CONNECT"
	leaveVar   = "CONTROL_TEST_LEAVE"
)

func TestMain(m *testing.M) {
	if os.Getenv(hiddenVar) != "" {
		printHidden()
		os.Exit(0)
	}
	path := os.Getenv(connectVar)
	if path == "" {
		os.Exit(m.Run())
	}
	leave := os.Getenv(leaveVar)
	if leave != "" { // the peer is a child of this process, which ends
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = append(os.Environ(), leaveVar+"=")
		cmd.Stdout = os.Stdout
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: leave == "session", Setpgid: leave == "group"}
		if err := cmd.Start(); err != nil {
			fmt.Println(err)
		}
		os.Exit(0)
	}
	if os.Getenv(orphanVar) != "" {
		for os.Getppid() != 1 {
			time.Sleep(time.Millisecond) // of the test's own process: its parent is about to end
		}
	}
	resp, err := unixClient(path).Get("http://tree/")
	if err != nil {
		fmt.Println(err)
		os.Exit(0)
	}
	b, _ := io.ReadAll(resp.Body)
	fmt.Println(resp.StatusCode, string(b))
	os.Exit(0)
}

// orphanVar says that the peer waits until it is a child of process 1.
const orphanVar = "CONTROL_TEST_ORPHAN"

func unixClient(path string) *http.Client {
	to := Transport(path)
	to.DisableKeepAlives = true
	return &http.Client{Transport: to}
}

// serve serves h on a socket, and returns its path.
func serve(t *testing.T, h http.Handler, tree func() []int) string {
	t.Helper()
	dir := t.TempDir()
	if err := errors.Join(os.Chmod(dir, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "tree.sock")
	ln, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	s := NewServer(h, slog.New(slog.DiscardHandler), tree)
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve(ln)
	}()
	t.Cleanup(func() {
		s.Close()
		<-served
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket is still there: %v", err)
		}
	})
	return path
}

var ok = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })

// TestPeers: root and the user of the tree may use the endpoint, but no process that comes from the
// tree. The last row is the weaker promise of ADR 0089.
func TestPeers(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to be another user")
	}
	group := func() []int { return []int{syscall.Getpgrp()} }
	for _, tt := range []struct {
		name  string
		leave string // what the peer leaves before it connects
		uid   uint32
		tree  func() []int
		want  string
	}{
		{"another user", "", 65534, nil, "403"},
		{"a child of the master", "", 0, nil, "403"},
		{"an orphan in the group of a process of the tree", "none", 0, group, "403"},
		{"an orphan in another session", "session", 0, nil, "200"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := serve(t, ok, func() []int {
				if tt.tree == nil {
					return nil
				}
				return tt.tree()
			})
			if err := os.Chmod(path, 0o666); err != nil { // for the other user
				t.Fatal(err)
			}
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), connectVar+"="+path, leaveVar+"="+tt.leave)
			if tt.leave != "" {
				cmd.Env = append(cmd.Env, orphanVar+"=1")
			}
			if tt.uid != 0 {
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: tt.uid, Gid: tt.uid}}
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stdout = w
			err = cmd.Start()
			if err != nil {
				t.Fatal(err)
			}
			w.Close()
			got, _ := io.ReadAll(r)
			if err := cmd.Wait(); err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(got), tt.want) {
				t.Errorf("got %q, want status %s", got, tt.want)
			}
		})
	}
}

// TestListen: nothing but a socket without a listener is replaced, and no directory is used that
// another user could change.
func TestListen(t *testing.T) {
	t.Run("replaces a stale socket", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.sock")
		ln, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "of a process that runs") {
			t.Errorf("with a listener: %v", err)
		}
		ln.UnixListener.Close() // its process was killed
		if ln, err = Listen(path); err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("mode %v, %v", st.Mode(), err)
		}
	})
	t.Run("removes only its own", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.sock")
		first, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		second, err := Listen(path)
		if err != nil {
			t.Fatal(err)
		}
		second.UnixListener.Close() // its name stays
		first.Close()
		if _, err := os.Stat(path); err != nil {
			t.Errorf("the other's socket has gone: %v", err)
		}
		second.Close()
		if left, _ := os.ReadDir(filepath.Dir(path)); len(left) > 0 {
			t.Errorf("left: %v", left)
		}
	})
	for _, tt := range []struct {
		name string
		make func(t *testing.T, dir string) error
		want string
	}{
		{"a file at the path", func(_ *testing.T, dir string) error {
			return os.WriteFile(filepath.Join(dir, "x.sock"), []byte("mine"), 0o600)
		}, "is not a socket"},
		{"a link at the path", func(_ *testing.T, dir string) error {
			return os.Symlink("/etc/passwd", filepath.Join(dir, "x.sock"))
		}, "is not a socket"},
		{"a directory open to others", func(_ *testing.T, dir string) error { return os.Chmod(dir, 0o755) }, "open to other users"},
		{"another user's directory", func(t *testing.T, dir string) error {
			if os.Getuid() != 0 {
				t.Skip("needs root")
			}
			return os.Chown(dir, 65534, 65534)
		}, "belongs to user 65534"},
		{"a link in the directory's place", func(t *testing.T, dir string) error {
			return errors.Join(os.Remove(dir), os.Symlink(t.TempDir(), dir))
		}, "not a directory"},
		{"a directory that cannot be made", func(_ *testing.T, dir string) error {
			return errors.Join(os.Remove(dir), os.WriteFile(dir, nil, 0o600))
		}, "not a directory"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir, second := filepath.Join(t.TempDir(), "first"), filepath.Join(t.TempDir(), "second")
			if err := errors.Join(os.Mkdir(dir, 0o700), tt.make(t, dir)); err != nil {
				t.Fatal(err)
			}
			ln, err := ListenAuto([]string{dir}, "x.sock")
			if err == nil {
				ln.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
			ln, err = ListenAuto([]string{dir, second}, "x.sock")
			if err != nil || ln.Path != filepath.Join(second, "x.sock") {
				t.Fatalf("the next directory: %+v, %v", ln, err)
			}
			ln.Close()
		})
	}
	t.Run("removes the sockets of trees that have ended", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "coppice")
		ended := exec.Command("true")
		if err := ended.Run(); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{fmt.Sprintf("x.dead.%d.sock", ended.Process.Pid), fmt.Sprintf("live.%d.sock", os.Getpid()), fmt.Sprintf("elsewhere.%d.sock", ended.Process.Pid)} {
			ln, err := ListenAuto([]string{dir}, name)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(name, "dead") {
				ln.UnixListener.Close() // its process was killed
			}
			defer ln.Close()
		}
		left, err := filepath.Glob(dir + "/*")
		if err != nil || len(left) != 2 || strings.Contains(left[0]+left[1], "dead") {
			t.Errorf("left %v, %v", left, err)
		}
	})
}

// TestHostileClients: clients that send nothing, too much or read nothing, however many, cost a
// bounded number of connections, and keep no other client out once they have gone.
func TestHostileClients(t *testing.T) {
	var most, now atomic.Int64
	path := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		most.Store(max(most.Load(), now.Add(1)))
		defer now.Add(-1)
		if r.URL.Path != "/stream" {
			ok(w, r)
			return
		}
		NewStream(w).Follow(r.Context(), func(context.Context) (string, uint64, any, error) {
			return "event", 1, strings.Repeat("x", 1<<10), nil // without end
		})
	}), func() []int { return nil })
	c := unixClient(path)
	t.Run("a long body", func(t *testing.T) {
		mounted := httptest.NewServer(Guard(Bounded(ok), nil)) // in a server of the program's own
		defer mounted.Close()
		for url, c := range map[string]*http.Client{"http://tree/": c, mounted.URL: http.DefaultClient} {
			for _, kind := range []string{"application/octet-stream", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"} {
				resp, err := c.Post(url, kind, io.LimitReader(zeros{}, 100<<20))
				if err == nil { // or the server has hung up
					resp.Body.Close()
					if resp.StatusCode != http.StatusRequestEntityTooLarge {
						t.Errorf("%s: status %d", kind, resp.StatusCode)
					}
				}
			}
		}
	})
	var conns []net.Conn
	t.Run("a thousand", func(t *testing.T) {
		full := 0
		for i := range 1000 {
			conn, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn)
			if i%2 == 0 { // the others send nothing
				_, _ = fmt.Fprint(conn, "GET /stream HTTP/1.1\r\nHost: tree\r\n\r\n") // a refused one is closed
			}
		}
		for _, conn := range conns[maxConns:] {
			_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			b := make([]byte, 64)
			if n, err := conn.Read(b); strings.Contains(string(b[:n]), "503") || errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) {
				full++
			}
		}
		if full < 1000-2*maxConns || most.Load() > maxConns {
			t.Errorf("%d of 1000 were refused, %d were served at a time", full, most.Load())
		}
	})
	for _, conn := range conns {
		conn.Close()
	}
	deadline := time.Now().Add(time.Minute)
	for {
		resp, err := c.Get("http://tree/")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("not served after they have gone: %v", err)
		}
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// TestGuard: no page of another origin, and none by a name that leads here, can use the handler.
func TestGuard(t *testing.T) {
	h := Guard(ok, []string{"admin.example"})
	for _, tt := range []struct {
		name, method, host string
		header             http.Header
		want               int
	}{
		{"curl", "POST", "127.0.0.1:9000", nil, 200},
		{"a page of its own", "POST", "localhost:9000", http.Header{"Origin": {"http://localhost:9000"}, "Sec-Fetch-Site": {"same-origin"}}, 200},
		{"IPv6", "GET", "[::1]:9000", nil, 200},
		{"a known name", "GET", "Admin.Example", nil, 200},
		{"a foreign page writes", "POST", "localhost:9000", http.Header{"Origin": {"http://evil.example"}, "Sec-Fetch-Site": {"cross-site"}}, 403},
		{"a foreign page writes, with an old browser", "POST", "localhost:9000", http.Header{"Origin": {"http://evil.example"}}, 403},
		{"a foreign page reads", "GET", "localhost:9000", http.Header{"Sec-Fetch-Site": {"cross-site"}}, 403},
		{"the address bar", "GET", "localhost:9000", http.Header{"Sec-Fetch-Site": {"none"}}, 200},
		{"a name that leads here", "GET", "evil.example:9000", nil, 403},
		{"a name that leads here, writing", "POST", "evil.example:9000", http.Header{"Origin": {"http://evil.example:9000"}, "Sec-Fetch-Site": {"same-origin"}}, 403},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, "/v1/reload", nil)
			r.Host, r.Header = tt.host, tt.header
			if r.Header == nil {
				r.Header = http.Header{}
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("status %d, want %d: %s", w.Code, tt.want, w.Body)
			}
		})
	}
}

// TestStreamEndsWithItsClient: a stream ends when its client has gone, and when its server closes.
func TestStreamEndsWithItsClient(t *testing.T) {
	var streams sync.WaitGroup
	streams.Add(1)
	path := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer streams.Done()
		NewStream(w).Follow(r.Context(), func(ctx context.Context) (string, uint64, any, error) {
			<-ctx.Done()
			return "", 0, nil, ctx.Err()
		})
	}), func() []int { return nil })
	resp, err := unixClient(path).Get("http://tree/")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	streams.Wait()
}

// TestUnrelated: a process comes from the tree if it, or an ancestor of it, is the master, or is a
// process of the tree or in the group of one, or is in the session that the master leads. The
// master may be process 1, which gets the orphans of its container.
func TestUnrelated(t *testing.T) {
	const worker = 20
	stats := func(master int) map[int]procStat {
		m := map[int]procStat{
			1: {0, 1, 1}, 10: {1, 10, 10}, worker: {master, worker, 10},
			30: {1, 30, 30}, 31: {30, 31, 30}, // a login, and a command in it
			40: {worker, 40, 40},                  // a child of the worker, in a session of its own
			50: {1, worker, 10}, 51: {50, 51, 51}, // an orphan in the worker's group, and its child
			60: {1, 60, 10}, 61: {60, 61, 61}, // an orphan in the master's session, and its child
			70: {1, 70, 70}, // an orphan in a session of its own
			80: {0, 80, 80}, // from outside of the PID namespace
		}
		m[91] = procStat{90, 91, 91}
		for pid := 100; pid < 200; pid++ { // a chain to 1
			m[pid] = procStat{pid + 1, pid, pid}
		}
		m[200] = procStat{1, 200, 200}
		return m
	}
	for _, tt := range []struct {
		name        string
		master, pid int
		want        string // "" = it may
	}{
		{"a command", 10, 31, ""},
		{"of the container's runtime", 1, 80, ""},
		{"a worker", 10, worker, "process of the tree"},
		{"a child of a worker", 10, 40, "process of the tree"},
		{"an orphan in a worker's group", 10, 50, "group or the session"},
		{"a child of that orphan", 10, 51, "group or the session"},
		{"an orphan in the master's session", 10, 60, "group or the session"},
		{"a child of that orphan, in another session", 10, 61, "group or the session"},
		{"an orphan that left all", 10, 70, ""},
		{"an orphan of process 1, which is the master", 1, 70, "process of the tree"},
		{"at the end of a long chain", 10, 100, "more than 64 ancestors"},
		{"that has ended", 10, 99, "no such process"},
		{"of another user, hidden", 10, 90, ""},
		{"its child", 10, 91, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			all := stats(tt.master)
			err := unrelated(tt.master, tt.pid, []int{worker}, func(pid int) (procStat, error) {
				st, ok := all[pid]
				if pid == 90 {
					return st, errHidden
				}
				if !ok {
					return st, syscall.ESRCH
				}
				return st, nil
			})
			if got := fmt.Sprint(err); err == nil && tt.want != "" || err != nil && (tt.want == "" || !strings.Contains(got, tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestHidden: a process that /proc does not show does not count as one that has ended.
func TestHidden(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount")
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), hiddenVar+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); errors.Is(err, os.ErrPermission) {
		t.Skip("needs CAP_SYS_ADMIN, to mount")
	} else if err != nil || string(out) != "is hidden\n" {
		t.Errorf("%s, %v", out, err)
	}
}

// hiddenVar says that the test binary prints what it learns of its parent when /proc is empty.
const hiddenVar = "CONTROL_TEST_HIDDEN"

func printHidden() {
	parent := os.Getppid()
	err := errors.Join(syscall.Mount("", "/", "", syscall.MS_PRIVATE|syscall.MS_REC, ""), syscall.Mount("none", "/proc", "tmpfs", 0, ""))
	if err == nil {
		_, err = statOf(parent)
	}
	fmt.Println(err)
}
