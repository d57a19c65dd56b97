//go:build linux

package coppice_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// outsideVar is the variable with the directory that the tree "outside" uses.
const outsideVar = "COPPICE_TEST_OUTSIDE"

func init() {
	trees["outside"] = func() coppice.Config {
		often := supervisor.Intensity{Max: 1000, Period: time.Second}
		dir := os.Getenv(outsideVar)
		return coppice.Config{
			Intensity: often,
			Hooks:     coppice.Hooks{Crash: coppice.CrashFiles(filepath.Join(dir, "crashes"), 0)},
			Children: []coppice.ChildSpec{
				coppice.Pool{Name: "web", Size: 2, Intensity: often, Worker: func(ctx context.Context, w *coppice.Worker) error {
					ln, err := w.Listen("unix", filepath.Join(dir, "web"))
					if err != nil {
						return err
					}
					mux := http.NewServeMux()
					mux.HandleFunc("/listen", func(http.ResponseWriter, *http.Request) {
						go func() { // ends with the worker
							_, _ = w.ListenSpec(ctx, coppice.ListenerSpec{Network: "unix", Address: filepath.Join(dir, "hangs", "socket")})
						}()
					})
					mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) {
						fmt.Println("asked")
						_, _ = io.WriteString(rw, w.Name())
					})
					return w.Serve(ctx, ln, &http.Server{Handler: mux})
				}},
				coppice.Process{Name: "program", Command: []string{filepath.Join(dir, "program", "sleep"), "3600"}},
				coppice.Process{Name: "in", Command: []string{"sleep", "3600"}, Environment: coppice.Environment{Dir: filepath.Join(dir, "in")}},
				coppice.Process{Name: "logs", Command: []string{"sleep", "3600"}, Environment: coppice.Environment{
					Files: []coppice.File{{Name: "log", Path: filepath.Join(dir, "logs", "log"), Append: true}},
				}},
			},
		}
	}
}

// outsideDir makes the directory of the tree "outside".
func outsideDir(t *testing.T) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "outside") //nolint:usetesting // it is removed once nothing is written there any more
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		runtimetest.Eventually(t, "the directory can be removed", func() bool { return os.RemoveAll(dir) == nil })
	})
	t.Setenv(outsideVar, dir)
	for _, sub := range []string{"crashes", "hangs", "program", "in", "logs"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	sleep, err := exec.LookPath("sleep")
	if err == nil {
		err = exec.Command("cp", sleep, filepath.Join(dir, "program")).Run()
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// askOutside makes the tree "outside" answer a request.
func askOutside(t *testing.T, path string) {
	t.Helper()
	client := http.Client{Timeout: runtimetest.Patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(os.Getenv(outsideVar), "web"))
		},
	}}
	resp, err := client.Get("http://outside" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
}

// hangDirectory makes dir answer nothing until the test ends, like the file system of a server that
// has gone away: a process that looks into it waits. It needs root, which may mount a file system
// there; without root the test is skipped.
func hangDirectory(t *testing.T, dir string) {
	t.Helper()
	mountFuse(t, dir) // fuse(4): the first request, which no process reads, is to be answered before any other
}

// mountFuse mounts a file system at dir and returns where its requests come, for the test.
func mountFuse(t *testing.T, dir string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Skipf("a file system that hangs: /dev/fuse: %v", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0", fd)
	if err := unix.Mount("hung", dir, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		_ = unix.Close(fd)
		t.Skipf("a file system that hangs: mount: %v", err)
	}
	fuse := os.NewFile(uintptr(fd), "/dev/fuse")
	t.Cleanup(func() {
		if err := fuse.Close(); err != nil { // what waits gets ENOTCONN
			t.Error(err)
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return fuse
}

// hangOpen makes dir answer a process that looks at a file in it, and not one that opens a file:
// linux/fuse.h.
func hangOpen(t *testing.T, dir string) {
	t.Helper()
	const lookup, forget, getattr, open, start, interrupt = 1, 2, 3, 14, 26, 36
	fuse := mountFuse(t, dir)
	attr := func(node uint64) []byte {
		b := make([]byte, 88) // struct fuse_attr
		binary.NativeEndian.PutUint64(b, node)
		mode := uint32(unix.S_IFREG | 0o644)
		if node == 1 {
			mode = unix.S_IFDIR | 0o755
		}
		binary.NativeEndian.PutUint32(b[60:], mode)
		binary.NativeEndian.PutUint32(b[64:], 1)
		return b
	}
	go func() { // ends with the test, which closes fuse
		in := make([]byte, 1<<17)
		for {
			n, err := fuse.Read(in)
			if err != nil || n < 40 {
				return
			}
			out := make([]byte, 16) // struct fuse_out_header
			copy(out[8:], in[8:16])
			switch binary.NativeEndian.Uint32(in[4:]) {
			case open, forget, interrupt:
				continue
			case start:
				var b [64]byte // struct fuse_init_out
				binary.NativeEndian.PutUint32(b[:], 7)
				binary.NativeEndian.PutUint32(b[4:], 31)
				binary.NativeEndian.PutUint32(b[20:], 4096)
				out = append(out, b[:]...)
			case lookup:
				var b [40]byte // struct fuse_entry_out, valid for no time
				binary.NativeEndian.PutUint64(b[:], 2)
				out = append(append(out, b[:]...), attr(2)...)
			case getattr:
				out = append(append(out, make([]byte, 16)...), attr(binary.NativeEndian.Uint64(in[16:]))...)
			default:
				binary.NativeEndian.PutUint32(out[4:], ^uint32(unix.ENOSYS)+1)
			}
			binary.NativeEndian.PutUint32(out, uint32(len(out)))
			if _, err := fuse.Write(out); err != nil && !errors.Is(err, unix.ENOENT) { // it waits no more
				return
			}
		}
	}()
}

// withinLimits starts with a time limit that is doubled until the start fails with an error that
// says what it was at: on a loaded machine the first limits may not take it so far.
func withinLimits(start func(limit time.Duration) error, says string) (err error) {
	for limit := 50 * time.Millisecond; limit < runtimetest.Patience/2; limit *= 2 {
		if err = start(limit); err == nil || strings.Contains(err.Error(), says) {
			break
		}
	}
	return err
}

// TestHungOpen: a file that can be looked at but not opened holds up no start for longer than the
// start's own time.
func TestHungOpen(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hangs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	hangOpen(t, dir)
	path := filepath.Join(dir, "file")
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		t.Fatal(st, err)
	}
	for name, program := range map[string]coppice.Process{
		"file":    {Command: []string{"sleep", "3600"}, Environment: coppice.Environment{Files: []coppice.File{{Name: "in", Path: path}}}},
		"program": {Command: []string{path}},
	} {
		t.Run(name, func(t *testing.T) {
			program.Name = "child"
			ended := make(chan error, 1)
			go func() { // ends with the start
				ended <- withinLimits(func(limit time.Duration) error {
					program.StartTimeout = limit
					_, err := coppice.Start(context.Background(), coppice.Config{Children: []coppice.ChildSpec{program}})
					return err
				}, path)
			}()
			select {
			case err := <-ended:
				if !errors.Is(err, syscall.ETIMEDOUT) || !strings.Contains(err.Error(), path) {
					t.Errorf("error %v", err)
				}
			case <-time.After(2 * runtimetest.Patience):
				t.Fatal("the start waits for the file system")
			}
			noneLeft(t)
		})
	}
}

// TestFileSystemHangs: a directory that the tree uses does not answer any more, or the name servers
// do not, and then every process is killed, twice. The processes that do not use it are replaced
// and answer, and the tree ends in order.
func TestFileSystemHangs(t *testing.T) {
	for _, tt := range []struct {
		name string
		sub  string                         // the directory that hangs
		then func(*testing.T, *runningTree) // has something wait for it
		lost []string                       // which processes need it
	}{
		{name: "crash reports", sub: "crashes"},
		{name: "socket that a worker asks for", sub: "hangs", then: func(t *testing.T, _ *runningTree) { askOutside(t, "/listen") }},
		{name: "program", sub: "program", lost: []string{"program"}},
		{name: "working directory", sub: "in", lost: []string{"in"}},
		{name: "file of a process", sub: "logs", lost: []string{"logs"}},
		{name: "name servers", sub: "hangs", then: func(t *testing.T, p *runningTree) {
			asked := make(chan struct{})
			once := sync.OnceFunc(func() { close(asked) })
			before := net.DefaultResolver
			net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				once()
				<-ctx.Done()
				return nil, ctx.Err()
			}}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { // ends with ctx
				defer close(done)
				_ = p.StartChild(ctx, "", coppice.ListenerSpec{Name: "far", Network: "tcp", Address: "a.name.invalid:0"})
			}()
			t.Cleanup(func() {
				cancel()
				<-done
				net.DefaultResolver = before
			})
			<-asked
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := outsideDir(t)
			p := startTree(t, "outside")
			askOutside(t, "/")
			hangDirectory(t, filepath.Join(dir, tt.sub))
			if tt.then != nil {
				tt.then(t, p)
			}
			rounds := 2
			if testing.Short() {
				rounds = 1
			}
			for range rounds {
				before := p.processes()
				for _, name := range tt.lost {
					if pid := before[name]; pid != 0 {
						runtimetest.Eventually(t, name+" ends", func() bool {
							_ = syscall.Kill(pid, syscall.SIGKILL)
							return !runtimetest.Alive(pid)
						})
					}
				}
				p.killAll()
				for _, name := range tt.lost {
					delete(before, name)
				}
				runtimetest.Eventually(t, "everybody replaced", func() bool {
					after := p.processes()
					for name, pid := range before {
						if name != "master" && (after[name] == 0 || after[name] == pid) {
							return false
						}
					}
					return true
				})
				askOutside(t, "/")
			}
			ctx, cancel := context.WithTimeout(context.Background(), runtimetest.Patience)
			defer cancel()
			if err := p.Shutdown(ctx); err != nil {
				t.Errorf("shutdown: %v", err)
			}
		})
	}
}

// TestHungStart: something that a start needs does not answer. The start has its StartTimeout and
// no other bound, the fork included, and its error names what it waited for; the end of the start
// ends the wait at once.
func TestHungStart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hangs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	hangDirectory(t, dir)
	in := coppice.Environment{Dir: filepath.Join(dir, "in")}
	idle := func(ctx context.Context, _ *coppice.Worker) error { <-ctx.Done(); return nil }
	for name, child := range map[string]func(time.Duration) coppice.ChildSpec{
		"process": func(d time.Duration) coppice.ChildSpec {
			return coppice.Process{Name: "child", Command: []string{"sleep", "3600"}, Environment: in, StartTimeout: d}
		},
		"pool": func(d time.Duration) coppice.ChildSpec {
			return coppice.Pool{Name: "child", Size: 1, Worker: idle, Environment: in, StartTimeout: d}
		},
		"file": func(d time.Duration) coppice.ChildSpec {
			files := []coppice.File{{Name: "in", Path: in.Dir}}
			return coppice.Process{Name: "child", Command: []string{"sleep", "3600"}, Environment: coppice.Environment{Files: files}, StartTimeout: d}
		},
	} {
		t.Run(name, func(t *testing.T) {
			start := func(ctx context.Context, limit time.Duration) error {
				_, err := coppice.Start(ctx, coppice.Config{ListenerIsolation: coppice.GoroutineIsolation, Children: []coppice.ChildSpec{child(limit)}})
				return err
			}
			err := withinLimits(func(limit time.Duration) error { return start(t.Context(), limit) }, in.Dir)
			if !errors.Is(err, syscall.ETIMEDOUT) ||
				!errors.Is(err, supervisor.ErrStartTimeout) || !errors.Is(err, coppice.ErrNotReady) || !strings.Contains(err.Error(), in.Dir) {
				t.Errorf("error %v", err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- start(ctx, time.Hour) }() // ends with ctx
			select {
			case err := <-ended:
				if err == nil {
					t.Error("the start has succeeded")
				}
			case <-time.After(runtimetest.Patience):
				t.Fatal("the start goes on after its end")
			}
			noneLeft(t)
		})
	}
}

// TestNobodyReads: a file that the master writes to takes nothing, or has lost its reader, and then
// every process is killed, twice. They are replaced and answer, and the tree ends in order.
func TestNobodyReads(t *testing.T) {
	for _, stuck := range []string{"stdout", "stderr", "NOTIFY_SOCKET", "stdout without a reader", "stderr without a reader"} {
		t.Run(stuck, func(t *testing.T) {
			outsideDir(t)
			self, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(self)
			cmd.Env = append(os.Environ(), "COPPICE_TEST_PROGRAM=1", treeVar+"=outside")
			switch stuck {
			case "stdout":
				cmd.Stdout = fullPipe(t)
			case "stderr":
				cmd.Stderr = fullPipe(t)
			case "stdout without a reader":
				cmd.Stdout = brokenPipe(t)
			case "stderr without a reader":
				cmd.Stderr = brokenPipe(t)
			case "NOTIFY_SOCKET":
				cmd.Env = append(cmd.Env, "WATCHDOG_USEC=200000", "NOTIFY_SOCKET="+fullSocket(t))
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan error, 1)
			go func() { ended <- cmd.Wait() }() // ends with the program
			t.Cleanup(func() { _ = cmd.Process.Kill() })
			up := func() []int {
				t.Helper()
				var kids []int
				runtimetest.Eventually(t, "six children and a socket", func() bool {
					kids = runtimetest.Children(t, cmd.Process.Pid)
					_, err := os.Stat(filepath.Join(os.Getenv(outsideVar), "web"))
					return len(kids) == 6 && err == nil
				})
				askOutside(t, "/")
				return kids
			}
			rounds := 2
			if testing.Short() {
				rounds = 1
			}
			for range rounds {
				for _, pid := range up() {
					// One that came up for the listener process just killed may have gone with it.
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
						t.Fatal(err)
					}
					runtimetest.Eventually(t, "it has ended", func() bool { return !runtimetest.Alive(pid) })
				}
			}
			up()
			if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			select {
			case err := <-ended:
				if err != nil {
					t.Errorf("the program ended: %v", err)
				}
			case <-time.After(runtimetest.Patience):
				t.Errorf("the program still runs %v after SIGTERM", runtimetest.Patience)
			}
		})
	}
}

// TestPipeThatNobodyReads: if a process is to write to a pipe that no process reads, the start
// fails with an error that says so; opening the pipe would block.
func TestPipeThatNobodyReads(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := coppice.Start(t.Context(), coppice.Config{Children: []coppice.ChildSpec{coppice.Process{
		Name: "program", Command: []string{"sleep", "3600"},
		Environment: coppice.Environment{Files: []coppice.File{{Name: "log", Path: path, Append: true}}},
	}}})
	if !errors.Is(err, syscall.ENXIO) || !strings.Contains(err.Error(), "Environment.Files log: ") || !strings.Contains(err.Error(), "a pipe that no process reads") {
		t.Errorf("error %v", err)
	}
	noneLeft(t)
}

// fullPipe returns the writing end of a pipe that is full and that no process reads.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() })
	for err == nil {
		if err = w.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err == nil {
			_, err = w.Write([]byte(strings.Repeat("x", 4096)))
		}
	}
	return w
}

// brokenPipe returns the writing end of a pipe that has no reader any more.
func brokenPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	t.Cleanup(func() { w.Close() })
	return w
}

// TestBackgroundJob: a program that is a background job of a terminal that forbids it to write
// (stty tostop) does not lose a worker when it writes, and its output appears.
func TestBackgroundJob(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	outsideDir(t)
	shell, shown := onTerminal(t, `set -m; stty tostop; "$0" & wait`, self, treeVar+"=outside") // -m: a job gets a separate group
	var program int
	runtimetest.Eventually(t, "the program", func() bool {
		kids := runtimetest.Children(t, shell.Process.Pid)
		if len(kids) != 1 {
			return false
		}
		program = kids[0]
		_, err := os.Stat(filepath.Join(os.Getenv(outsideVar), "web"))
		return err == nil && len(runtimetest.Children(t, program)) == 6 && strings.Contains(shown(), "the tree is up")
	})
	if err := syscall.Kill(program, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	askOutside(t, "/")
	if kids := runtimetest.Children(t, program); len(kids) != 6 {
		t.Errorf("%d children, of 6", len(kids))
	}
	if err := syscall.Kill(program, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := shell.Wait(); err != nil {
		t.Error(err)
	}
	if out := shown(); !strings.Contains(out, "web/1") || !strings.Contains(out, "shutting down") {
		t.Errorf("the terminal shows %q", out)
	}
}

// fullSocket returns the path of a socket of datagrams that takes no more.
func fullSocket(t *testing.T) (path string) {
	t.Helper()
	n := newNotifySocket(t)
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: n.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for err == nil {
		if err = c.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err == nil {
			_, err = c.Write([]byte("x"))
		}
	}
	return n.path
}
