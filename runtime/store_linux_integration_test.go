//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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

func init() {
	trees["a service with a store"] = func() coppice.Config {
		if !coppice.IsChild() && os.Getenv("LISTEN_FDS") != "" {
			os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid())) // as systemd does, between fork and exec
		}
		dir := os.Getenv("COPPICE_TEST_DIR")
		listeners := []coppice.ListenerSpec{
			{Name: "tcp", Network: "tcp", Address: "127.0.0.1:0"},
			{Name: "group", Network: "tcp", Address: "127.0.0.1:0", Policy: coppice.ReusePort},
			{Name: "unix", Network: "unix", Address: filepath.Join(dir, "unix"), Mode: 0o600},
			{Name: "shared", Network: "unix", Address: filepath.Join(dir, "shared"), Policy: coppice.Shared},
			{Name: "admin", SystemdName: "admin", Network: "tcp", Address: "127.0.0.1:0"},
			{Name: "dns", Network: "udp", Address: "127.0.0.1:0"},
		}
		if os.Getenv("COPPICE_TEST_FEWER") != "" {
			listeners = listeners[1:]
		}
		var children []coppice.ChildSpec
		for _, l := range listeners {
			children = append(children, l)
		}
		gaveUp := supervisor.Intensity{Max: 0, Period: time.Second}
		return coppice.Config{Intensity: gaveUp, Children: append(children, coppice.Pool{Name: "web", Size: 2, Intensity: gaveUp, Worker: func(ctx context.Context, w *coppice.Worker) error {
			if os.Getenv("FDSTORE")+os.Getenv("NOTIFY_SOCKET") != "" {
				return fmt.Errorf("a worker has the variables of the master's service manager")
			}
			for _, l := range listeners {
				if l.Name == "dns" {
					continue
				}
				ln, err := w.Listener(ctx, l.Name)
				if err != nil {
					return err
				}
				go answerName(ln, l.Name)
			}
			ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Name: "own", Network: "tcp", Address: "127.0.0.1:0"})
			if err != nil {
				return err
			}
			go answerName(ln, "own")
			pc, err := w.PacketConn(ctx, "dns")
			if err != nil {
				return err
			}
			go func() {
				b := make([]byte, 64)
				for _, from, err := pc.ReadFrom(b); err == nil; _, from, err = pc.ReadFrom(b) {
					_, _ = pc.WriteTo([]byte("dns"), from)
				}
			}()
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}})}
	}
}

// storingSystemd has a descriptor store, as sd_notify(3) and sd_pid_notify_with_fds(3) describe
// systemd's.
type storingSystemd struct {
	*notifySocket

	mu    sync.Mutex
	store []*os.File
	said  []string
	grew  chan struct{} // closed and replaced with each message
}

// newStoringSystemd returns one that has files in its store.
func newStoringSystemd(t *testing.T, files ...*os.File) *storingSystemd {
	m := &storingSystemd{notifySocket: newNotifySocket(t), store: files, grew: make(chan struct{})}
	over := make(chan struct{})
	go func() { // ends with the socket
		defer close(over)
		b, oob := make([]byte, 4096), make([]byte, 4096)
		for {
			n, on, _, _, err := m.conn.ReadMsgUnix(b, oob)
			if err != nil {
				return
			}
			m.handle(string(b[:n]), oob[:on])
		}
	}()
	t.Cleanup(func() {
		m.conn.Close()
		<-over
		for _, f := range m.store {
			f.Close()
		}
	})
	return m
}

func (m *storingSystemd) handle(message string, oob []byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	vars := map[string]string{}
	for line := range strings.Lines(message) {
		k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		vars[k] = v
	}
	var fds []int
	if messages, err := unix.ParseSocketControlMessage(oob); err == nil {
		for i := range messages {
			more, _ := unix.ParseUnixRights(&messages[i])
			fds = append(fds, more...)
		}
	}
	name := vars["FDNAME"]
	if vars["FDSTOREREMOVE"] == "1" {
		m.store = slices.DeleteFunc(m.store, func(f *os.File) bool {
			if f.Name() == name {
				f.Close()
			}
			return f.Name() == name
		})
	}
	for _, fd := range fds {
		if vars["FDSTORE"] == "1" {
			m.store = append(m.store, os.NewFile(uintptr(fd), name))
		} else {
			unix.Close(fd)
		}
	}
	m.said = append(m.said, message)
	close(m.grew)
	m.grew = make(chan struct{})
}

// await waits for a message that begins with begin, after those before it.
func (m *storingSystemd) await(begin string, from int) (at int) {
	m.t.Helper()
	for deadline := time.After(runtimetest.Patience); ; {
		m.mu.Lock()
		i, grew := slices.IndexFunc(m.said[from:], func(s string) bool { return strings.HasPrefix(s, begin) }), m.grew
		m.mu.Unlock()
		if i >= 0 {
			return from + i + 1
		}
		select {
		case <-grew:
		case <-deadline:
			m.t.Fatalf("nothing like %q was said", begin)
		}
	}
}

// names returns what is in the store, each name with the inode of its socket.
func (m *storingSystemd) names() (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, f := range m.store {
		st, err := f.Stat()
		if err != nil {
			m.t.Fatal(err)
		}
		names = append(names, fmt.Sprint(f.Name(), " ", st.Sys().(*syscall.Stat_t).Ino))
	}
	slices.Sort(names)
	return names
}

// start starts the service with what is in the store.
func (m *storingSystemd) start(env ...string) *runtimetest.Program {
	m.t.Helper()
	m.mu.Lock()
	files := slices.Clone(m.store)
	from := len(m.said)
	m.mu.Unlock()
	var names []string
	for _, f := range files {
		names = append(names, f.Name())
	}
	p := runtimetest.StartWith(m.t, append([]string{
		treeVar + "=a service with a store", "NOTIFY_SOCKET=" + m.path, "FDSTORE=20",
		fmt.Sprint("LISTEN_FDS=", len(files)), "LISTEN_FDNAMES=" + strings.Join(names, ":"),
	}, env...), files)
	m.await("READY=1", from)
	return p
}

// addresses returns where the sockets of the store are, by the name that answers there.
func (m *storingSystemd) addresses() map[string]net.Addr {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := map[string]net.Addr{}
	for _, f := range m.store {
		for prefix, name := range map[string]string{
			"coppice;tcp4;127.0.0.1;0;0;tcp;": "tcp", "coppice;tcp4;127.0.0.1;0;0;group;": "group", "coppice;tcp4;127.0.0.1;0;0;own;": "own",
			"coppice;udp4;127.0.0.1;0;0;dns;": "dns", "coppice;unix;" + os.Getenv("COPPICE_TEST_DIR") + "/unix;0;": "unix",
			"coppice;unix;" + os.Getenv("COPPICE_TEST_DIR") + "/shared;0;": "shared", "admin": "admin",
		} {
			if !strings.HasPrefix(f.Name(), prefix) {
				continue
			}
			if name == "dns" {
				pc, err := net.FilePacketConn(f)
				if err != nil {
					m.t.Fatal(err)
				}
				at[name] = pc.LocalAddr()
				pc.Close()
				continue
			}
			ln, err := net.FileListener(f)
			if err != nil {
				m.t.Fatal(err)
			}
			if u, ok := ln.(*net.UnixListener); ok {
				u.SetUnlinkOnClose(false)
			}
			at[name] = ln.Addr()
			ln.Close()
		}
	}
	return at
}

// ask connects to a listener, or sends to it, and returns a function that waits for the answer.
func ask(t *testing.T, a net.Addr) (answer func() string) {
	t.Helper()
	c, err := net.Dial(a.Network(), a.String())
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	if a.Network() == "udp" {
		_, _ = c.Write([]byte("?"))
	}
	return func() string {
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(runtimetest.Patience))
		b := make([]byte, 64)
		n, err := c.Read(b)
		if err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		answer, _, _ := strings.Cut(string(b[:n]), " ")
		return answer
	}
}

// killAtOnce kills the program and its children, as the kernel kills a cgroup: none does anything
// more.
func killAtOnce(t *testing.T, p *runtimetest.Program) {
	t.Helper()
	kids := runtimetest.Children(t, p.PID())
	for _, pid := range append(kids, p.PID()) {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
	}
	for _, pid := range append([]int{p.PID()}, kids...) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	p.Wait()
	for _, pid := range kids {
		runtimetest.Eventually(t, "the children to be gone", func() bool { return syscall.Kill(pid, 0) != nil || isZombie(pid) })
	}
}

func isZombie(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(b), ") Z ")
}

// TestDescriptorStore: when every process of the tree is killed at once, its sockets are in
// systemd's store: no client is refused, and the next start has the same sockets and answers the
// clients that came in between. What was systemd's by another name stays what it was. A socket that
// the next program does not ask for is closed, and the log says so. An end in order, or of a tree
// that gave up, leaves the sockets too.
func TestDescriptorStore(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("COPPICE_TEST_DIR", dir)
	admin, _ := listening(t, anyTCP)
	other, err := os.Open(os.DevNull) // of the program's, in the same store
	if err != nil {
		t.Fatal(err)
	}
	m := newStoringSystemd(t, renamed(t, admin[0], "admin"), renamed(t, other, "state"))
	p := m.start()
	at := m.addresses()
	before := m.names()
	if len(at) != 7 || len(before) != 9 { // the group has two sockets
		t.Fatalf("%q at %v", before, at)
	}
	answered := func(moment string, answers map[string]func() string) {
		t.Helper()
		for name, answer := range answers {
			if got := answer(); got != name {
				t.Errorf("%s: %s answers %q", moment, name, got)
			}
		}
	}
	asked := func() map[string]func() string {
		t.Helper()
		all := map[string]func() string{}
		for name, a := range at {
			all[name] = ask(t, a)
		}
		return all
	}
	answered("at the start", asked())
	for _, end := range []struct {
		name string
		how  func()
	}{
		{"killed", func() { killAtOnce(t, p) }},
		{"stopped", func() { p.Signal(syscall.SIGTERM); p.Wait() }},
		{"gave up", func() {
			for _, pid := range runtimetest.Children(t, p.PID()) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			if code := p.Wait(); code != 1 {
				t.Errorf("exit code %d of a tree that gave up", code)
			}
		}},
		{"killed again", func() { killAtOnce(t, p) }},
	} {
		end.how()
		answers := asked()
		p = m.start()
		answered(end.name, answers)
		answered("after "+end.name, asked())
		if after := m.names(); !slices.Equal(after, before) {
			t.Errorf("%s: in the store %q, then %q", end.name, before, after)
		}
	}
	killAtOnce(t, p)
	p = m.start("COPPICE_TEST_FEWER=1")
	p.Await(`a socket that systemd kept was not asked for before the tree was up: it is closed name=coppice;tcp4;127\.0\.0\.1;0;0;tcp;0`)
	if c, err := net.Dial("tcp", at["tcp"].String()); err == nil {
		c.Close()
		t.Error("a listener that the tree has no more takes clients")
	}
	delete(at, "tcp")
	answered("with a listener less", asked())
	if after := m.names(); len(after) != len(before)-1 {
		t.Errorf("in the store %q, then %q", before, after)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// renamed returns f under another name.
func renamed(t *testing.T, f *os.File, name string) *os.File {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return os.NewFile(uintptr(fd), name)
}
