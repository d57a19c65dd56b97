//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

func init() {
	trees["a service of systemd's"] = func() coppice.Config {
		if !coppice.IsChild() && os.Getenv("LISTEN_FDS") != "" {
			os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // as systemd does, between fork and exec
		}
		return coppice.Config{Children: []coppice.ChildSpec{
			coppice.ListenerSpec{Name: "http", SystemdName: "http:1", Network: "tcp", Address: "127.0.0.1:0"},
			coppice.Pool{
				Name: "web", Size: 2, Intensity: supervisor.Intensity{Max: 1000, Period: time.Second},
				Worker: func(ctx context.Context, w *coppice.Worker) error {
					ln, err := w.Listener(ctx, "http")
					if err != nil {
						return err
					}
					// The variables for the master alone have not reached the worker.
					mux := http.NewServeMux()
					mux.HandleFunc("/env", func(rw http.ResponseWriter, _ *http.Request) {
						for _, v := range []string{"LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"} {
							if os.Getenv(v) != "" {
								_, _ = rw.Write([]byte(v))
							}
						}
					})
					return w.Serve(ctx, ln, &http.Server{Handler: mux})
				},
			},
		}}
	}
	trees["loads what is there"] = func() coppice.Config {
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		})
		cfg.Load = func(context.Context) ([]byte, error) { return os.ReadFile(os.Getenv("LOADS")) }
		return cfg
	}
	trees["ends badly"] = func() coppice.Config {
		cfg := pool(1, func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			<-make(chan struct{}) // it does not end
			return nil
		})
		cfg.Shutdown = time.Minute
		switch os.Getenv("HOW") {
		case "gives up":
			up := make(chan struct{})
			cfg.Hooks.Started = func(*coppice.Runtime) { close(up) }
			cfg.Intensity = supervisor.Intensity{Max: 0, Period: time.Second}
			cfg.Children = []coppice.ChildSpec{coppice.Func{Name: "fails", Run: func(context.Context) error {
				<-up
				return &os.PathError{Op: "open", Path: "/data", Err: syscall.EIO}
			}}}
		case "forced": // what is no process gets no share of the time
			cfg.Shutdown = 100 * time.Millisecond
			cfg.Children = append(cfg.Children, coppice.Func{Name: "endless", Run: func(ctx context.Context) error {
				<-ctx.Done()
				<-make(chan struct{})
				return nil
			}})
		}
		return cfg
	}
	trees["is never ready"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, _ *coppice.Worker) error {
			fmt.Println("begun")
			<-ctx.Done()
			return nil
		})
	}
	trees["asks for systemd's"] = func() coppice.Config {
		return pool(1, func(ctx context.Context, w *coppice.Worker) error {
			_, err := w.ListenSpec(ctx, coppice.ListenerSpec{SystemdName: "http"})
			return tell(ctx, w, workerReport{Error: errorText(err)})
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// notifySocket behaves as sd_notify(3) says systemd does: a datagram socket to
// which one datagram is one message of lines.
type notifySocket struct {
	t    *testing.T
	conn *net.UnixConn
	path string
}

func newNotifySocket(t *testing.T) *notifySocket {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &notifySocket{t, conn, path}
}

// next returns the next message, whole.
func (n *notifySocket) next() string {
	n.t.Helper()
	if err := n.conn.SetReadDeadline(time.Now().Add(runtimetest.Patience)); err != nil {
		n.t.Fatal(err)
	}
	var b [4096]byte
	size, err := n.conn.Read(b[:])
	if err != nil {
		n.t.Fatalf("nothing more was said: %v", err)
	}
	return string(b[:size])
}

// await returns the first message that matches re, and those before it.
func (n *notifySocket) await(re string) (before []string) {
	n.t.Helper()
	for want := regexp.MustCompile(re); ; {
		msg := n.next()
		if want.MatchString(msg) {
			return before
		}
		before = append(before, msg)
	}
}

// TestSystemd is P19: readiness once every child is up, the status as it changes,
// signs of life, a reload, and the end.
func TestSystemd(t *testing.T) {
	n := newNotifySocket(t)
	p := runtimetest.Start(t, []string{treeVar + "=a service of systemd's", "NOTIFY_SOCKET=" + n.path, "WATCHDOG_USEC=200000"})
	if first := n.next(); first != "READY=1\nSTATUS=web 2 of 2 ready" {
		t.Errorf("first %q", first)
	}
	n.await(`^WATCHDOG=1$`)
	n.await(`^WATCHDOG=1$`)

	for _, pid := range runtimetest.Children(t, p.PID()) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	n.await(`^STATUS=web 0 of 2 ready$|^STATUS=web 1 of 2 ready$`)
	n.await(`^STATUS=web 2 of 2 ready$`)

	p.Signal(syscall.SIGHUP)
	n.await(`^RELOADING=1\nMONOTONIC_USEC=\d+$`)
	n.await(`^READY=1$`)

	p.Signal(syscall.SIGTERM)
	for _, msg := range n.await(`^STOPPING=1\nEXTEND_TIMEOUT_USEC=30000000$`) {
		if strings.Contains(msg, "READY") {
			t.Errorf("ready again: %q", msg)
		}
	}
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestSystemdReloadThatDoesNotBegin: systemd, which waits for it, gets messages about a reload
// whose configuration cannot be loaded: that it is over, that the tree serves, and why.
func TestSystemdReloadThatDoesNotBegin(t *testing.T) {
	n := newNotifySocket(t)
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p := runtimetest.Start(t, []string{treeVar + "=loads what is there", "NOTIFY_SOCKET=" + n.path, "LOADS=" + config})
	n.await(`^READY=1\n`)
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	n.await(`^RELOADING=1\nMONOTONIC_USEC=\d+$`)
	n.await(`^READY=1\nSTATUS=coppice: load the configuration: open .*: no such file or directory$`)
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGHUP) // the status is the tree's again
	n.await(`^RELOADING=1\nMONOTONIC_USEC=\d+`)
	n.await(`STATUS=.* 1 of 1 ready$`)
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestSystemdOfErrors: systemd gets, and shows, the reason of an end that should not be: that the
// program stops, the error, and the errno if there is one; and signs of life while it stops. The
// exit code distinguishes it from an orderly end.
func TestSystemdOfErrors(t *testing.T) {
	const stopping, shutting = "STOPPING=1\nEXTEND_TIMEOUT_USEC=60000000", "STATUS=shutting down"
	for _, tt := range []struct {
		name, tree string
		signals    []syscall.Signal // each but the first is sent after a sign of life
		says       []string         // after READY=1, if there is one, but for that
		code       int
	}{
		{"does not start", "loads what is there", nil, []string{
			"STOPPING=1\nSTATUS=coppice: load the configuration: open : no such file or directory\nERRNO=2",
		}, 1},
		{"stopped while it starts", "is never ready", []syscall.Signal{syscall.SIGTERM}, []string{"STOPPING=1"}, 0},
		{"gives up", "ends badly", nil, []string{stopping, shutting, `STATUS=coppice: the tree ended: .*/data: input/output error.*`}, 1},
		{"forced", "ends badly", []syscall.Signal{syscall.SIGTERM}, []string{
			"STOPPING=1\nEXTEND_TIMEOUT_USEC=100000", shutting,
			"STATUS=shutting down: killing what is left\nEXTEND_TIMEOUT_USEC=10000000",
			"STATUS=coppice: shutdown: killed what was left: context deadline exceeded",
		}, 1},
		{"second signal", "ends badly", []syscall.Signal{syscall.SIGTERM, syscall.SIGQUIT}, []string{
			stopping, shutting, "STATUS=coppice: second signal: killing what is left",
		}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNotifySocket(t)
			p := runtimetest.Start(t, []string{treeVar + "=" + tt.tree, "NOTIFY_SOCKET=" + n.path, "HOW=" + tt.name, "WATCHDOG_USEC=40000"})
			switch tt.tree {
			case "ends badly":
				n.await(`^READY=1\n`)
			case "is never ready":
				p.Await(`begun$`)
			}
			for i, sig := range tt.signals {
				if i > 0 {
					n.await("^" + shutting + "$")
					n.await("^WATCHDOG=1$")
					n.await("^WATCHDOG=1$")
					tt.says = tt.says[2:]
				}
				p.Signal(sig)
			}
			for _, want := range tt.says {
				for _, other := range n.await("^" + want) {
					if strings.Contains(other, "READY") || strings.Contains(other, "STOPPING") || strings.Contains(other, "coppice") {
						t.Errorf("%q, not %q", other, want)
					}
				}
			}
			if code := p.Wait(); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
		})
	}
}

// TestReloadIsToldOnce: the error of a failed reload that a signal asked for is in the log once.
func TestReloadIsToldOnce(t *testing.T) {
	config := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := newNotifySocket(t)
	p := runtimetest.Start(t, []string{treeVar + "=loads what is there", "NOTIFY_SOCKET=" + n.path, "LOADS=" + config})
	n.await(`^READY=1\n`)
	if err := os.Remove(config); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	n.await(`^READY=1\nSTATUS=coppice: load the configuration`)
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if said := strings.Join(p.Lines(), "\n"); strings.Count(said, "no such file or directory") != 1 {
		t.Errorf("it says %s", said)
	}
}

// TestStatusPage: what SIGUSR1 prints is the tree.
func TestStatusPage(t *testing.T) {
	n := newNotifySocket(t)
	p := runtimetest.Start(t, []string{treeVar + "=a service of systemd's", "NOTIFY_SOCKET=" + n.path})
	n.await(`READY=1`)
	p.Signal(syscall.SIGUSR2) // reserved: no process dies of it
	p.Signal(syscall.SIGUSR1)
	p.Await(`web/1 +worker pid \d+`)
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestActivation is P21: the second of two sockets of one name is served, by workers that have no
// variable about it.
func TestActivation(t *testing.T) {
	var files []*os.File
	var addr string
	for range 2 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		files, addr = append(files, f), ln.Addr().String()
	}
	n := newNotifySocket(t)
	p := runtimetest.StartWith(t, []string{
		treeVar + "=a service of systemd's", "NOTIFY_SOCKET=" + n.path, "LISTEN_FDS=2", "LISTEN_FDNAMES=http:http",
	}, files)
	n.await(`READY=1`)
	resp, err := http.Get("http://" + addr + "/env")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ContentLength != 0 {
		t.Errorf("status %d; the worker has variables of %d bytes", resp.StatusCode, resp.ContentLength)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestNotActivated: the error of a missing socket names it and those that are there; a worker
// cannot ask for such a socket.
func TestNotActivated(t *testing.T) {
	p := runtimetest.StartWith(t, []string{
		treeVar + "=a service of systemd's", "LISTEN_FDS=1", "LISTEN_FDNAMES=admin",
	}, []*os.File{os.Stdin})
	if code := p.Wait(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	if out := strings.Join(p.Lines(), "\n"); !strings.Contains(out, `no socket "http" of systemd's: this program has admin`) {
		t.Errorf("printed %s", out)
	}

	if r := startTree(t, "asks for systemd's").reported(1)[0]; !strings.Contains(r.Error, "stands in the tree only") {
		t.Errorf("error %q", r.Error)
	}

	_, err := coppice.Start(t.Context(), coppice.Config{Children: []coppice.ChildSpec{
		coppice.ListenerSpec{Name: "http", SystemdName: "http", FD: 3},
	}})
	if _, ok := errors.AsType[*coppice.InvalidError](err); !ok {
		t.Errorf("error %v, want an InvalidError", err)
	}
}
