package fdipc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/fdipc/fdipctest"
)

// A child that has taken handles, and its own child, list what they have open: no channel, no
// handle and no marker variable reaches the grandchild.
func TestNothingLeaksToGrandchild(t *testing.T) {
	got := make(chan string, 1)
	c := spawn(t, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { got <- string(f.Payload) }}, map[string]string{"ROLE": "list"})
	client, server := tcpPair(t)
	defer client.Close()
	h, err := fdipc.HandleOf(server)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Handles: []*fdipc.Handle{h}}); err != nil {
		t.Fatal(err)
	}
	out := wait(t, "list", got)
	for line := range strings.Lines(out) {
		for _, bad := range []string{"socket:", "memfd:", "COPPICE_CHANNEL", "COPPICE_CHILD_"} {
			if strings.Contains(line, bad) {
				t.Errorf("the grandchild has %s", line)
			}
		}
	}
	if !strings.Contains(out, "pipe:") {
		t.Errorf("no list: %s", out)
	}
}

// Marker variables that make no sense are an error that names the variable, and are gone.
func TestInheritErrors(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		name, want string
		env        []string
	}{
		{"not a number", "COPPICE_CHANNEL=x", []string{"COPPICE_CHANNEL=x"}},
		{"empty", "COPPICE_CHANNEL=", []string{"COPPICE_CHANNEL="}},
		{"standard input", "COPPICE_CHANNEL=0", []string{"COPPICE_CHANNEL=0"}},
		{"not open", "COPPICE_CHANNEL=77: bad file descriptor", []string{"COPPICE_CHANNEL=77"}},
		{"a pipe", "COPPICE_CHANNEL=3: socket operation on non-socket", []string{"COPPICE_CHANNEL=3"}},
		{"half set", "COPPICE_CHANNEL: missing", []string{"COPPICE_CHILD_ROLE=worker"}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			cmd := exec.Command(exe)
			cmd.Env = append(os.Environ(), row.env...)
			cmd.ExtraFiles = []*os.File{r}
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), row.want) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
}

// Every kind of descriptor travels, is recognized, and works on the other side.
func TestKinds(t *testing.T) {
	dir := t.TempDir()
	file := func(v any, err error) *fdipc.Handle {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		h, err := fdipc.HandleOf(v)
		if err != nil {
			t.Fatal(err)
		}
		return h
	}
	fd := func(fd int, err error) *fdipc.Handle {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return fdipc.HandleFD(fd)
	}
	accepted := func(network, addr string) *fdipc.Handle {
		ln, err := net.Listen(network, addr)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return file(ln.Accept())
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pw.Close()
	rows := []struct {
		name string
		h    *fdipc.Handle
		kind fdipc.HandleKind
		as   string
	}{
		{"tcp4", accepted("tcp4", "127.0.0.1:0"), fdipc.HandleTCP, "conn"},
		{"tcp6", accepted("tcp6", "[::1]:0"), fdipc.HandleTCP, "conn"},
		{"unix", accepted("unix", filepath.Join(dir, "a")), fdipc.HandleUnix, "conn"},
		{"unixpacket", accepted("unixpacket", filepath.Join(dir, "b")), fdipc.HandleUnixPacket, "conn"},
		{"tcp listener", file(net.Listen("tcp", "127.0.0.1:0")), fdipc.HandleTCPListener, "listener"},
		{"unix listener", file(net.Listen("unix", filepath.Join(dir, "c"))), fdipc.HandleUnixListener, "listener"},
		{"unixpacket listener", file(net.Listen("unixpacket", filepath.Join(dir, "d"))), fdipc.HandleUnixPacketListener, "listener"},
		{"udp", file(net.ListenPacket("udp", "127.0.0.1:0")), fdipc.HandleUDP, "packetconn"},
		{"unixgram", file(net.ListenPacket("unixgram", filepath.Join(dir, "e"))), fdipc.HandleUnixgram, "packetconn"},
		{"pipe", file(pr, nil), fdipc.HandlePipe, "file"},
		{"file", file(os.Create(filepath.Join(dir, "f"))), fdipc.HandleFile, "file"},
		{"memfd", fd(unix.MemfdCreate("x", unix.MFD_CLOEXEC)), fdipc.HandleMemfd, "file"},
		{"eventfd", fd(unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)), fdipc.HandleEventfd, "file"},
		{"pidfd", fd(unix.PidfdOpen(os.Getpid(), 0)), fdipc.HandlePidfd, "file"},
		{"epoll", fd(unix.EpollCreate1(unix.EPOLL_CLOEXEC)), fdipc.HandleOther, "file"},
	}
	got := make(chan *fdipc.Handle, 1)
	a, _ := pair(t, fdipc.Config{Handler: ignore}, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Handles[0] }})
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if err := a.Send(context.Background(), &fdipc.Frame{Kind: 0x40, Handles: []*fdipc.Handle{row.h}}); err != nil {
				t.Fatal(err)
			}
			h := wait(t, "handle", got)
			if k := h.Kind(); k != row.kind {
				t.Errorf("kind %v, want %v", k, row.kind)
			}
			// What it is not it cannot become; it stays claimed.
			if row.as != "listener" {
				if _, err := h.Listener(); !errors.Is(err, fdipc.ErrHandleKind) {
					t.Errorf("as listener: %v", err)
				}
			}
			if row.as != "packetconn" {
				if _, err := h.PacketConn(); !errors.Is(err, fdipc.ErrHandleKind) {
					t.Errorf("as packet connection: %v", err)
				}
			}
			var c io.Closer
			var err error
			switch row.as {
			case "conn":
				c, err = h.Conn()
			case "listener":
				c, err = h.Listener()
			case "packetconn":
				c, err = h.PacketConn()
			default:
				c, err = h.File()
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// Options of the listening socket are those of the connections it accepts, also after they were handed over.
func TestAcceptedInheritOptions(t *testing.T) {
	lc := net.ListenConfig{KeepAlive: -1, Control: func(_, _ string, rc syscallRawConn) error {
		return rc.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		})
	}}
	ln, err := lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	fd := -1
	rc, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = rc.Control(func(l uintptr) { // accept4 by itself: package net would set the options
		fd, _, err = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	})
	if err != nil {
		t.Fatal(err)
	}
	c := newPasser(t).pass(fdipc.HandleFD(fd)).(*fdipc.Socket)
	defer c.Close()
	for name, opt := range map[string][2]int{"no-delay": {unix.IPPROTO_TCP, unix.TCP_NODELAY}, "keep-alive": {unix.SOL_SOCKET, unix.SO_KEEPALIVE}} {
		if v, err := unix.GetsockoptInt(c.Fd(), opt[0], opt[1]); err != nil || v == 0 {
			t.Errorf("%s: %d, %v", name, v, err)
		}
	}
}

// The sender of a claimed connection may still have its copy when the receiver closes: the client sees the end at once,
// unless others may use the connection.
func TestFIN(t *testing.T) {
	p := newPasser(t)
	b := make([]byte, 1)

	client, server := tcpPair(t)
	c := p.pass(dupHandle(t, server))
	c.Close()
	client.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := client.Read(b); err != io.EOF {
		t.Errorf("after Close: %v", err)
	}
	client.Close()

	client, server = tcpPair(t)
	c = p.pass(dupHandle(t, server))
	f, err := c.(*fdipc.Socket).File()
	if err != nil {
		t.Fatal(err)
	}
	c.Close() // only closes: the duplicate lives
	if _, err := f.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	client.SetReadDeadline(time.Now().Add(20 * time.Second))
	if n, err := io.ReadFull(client, b); n != 1 {
		t.Errorf("the duplicate is dead: %v", err)
	}
	f.Close()
	if _, err := client.Read(b); err != io.EOF {
		t.Errorf("after the last close: %v", err)
	}
	client.Close()
}

// A handle that its receiver never claimed is closed there without shutting anything down.
func TestUnclaimedCloseLeavesConnection(t *testing.T) {
	back := make(chan *fdipc.Handle, 1)
	a, _ := pair(t,
		fdipc.Config{Handler: ignore, Settled: func(_ *fdipc.Conn, h *fdipc.Handle, _ fdipc.Outcome) { back <- h }},
		fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { f.Handles[0].Kind(); f.Handles[0].Close() }})
	client, server := tcpPair(t)
	defer client.Close()
	if err := a.Send(context.Background(), &fdipc.Frame{Kind: 0x40, Handles: []*fdipc.Handle{dupHandle(t, server)}}); err != nil {
		t.Fatal(err)
	}
	c, err := wait(t, "handle", back).Conn()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("alive")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 5)
	if _, err := io.ReadFull(client, b); err != nil || string(b) != "alive" {
		t.Errorf("%q, %v", b, err)
	}
}

// The receiver's descriptor table is full: the handles are refused and come back; the frame is not delivered
// in part; the Conn lives. In a child, whose limit can be set.
func TestReceiverOutOfFiles(t *testing.T) {
	back := make(chan *fdipc.Handle, 64)
	claimed := make(chan bool, 64)
	got := make(chan uint64, 1)
	c := spawn(t, fdipc.Config{
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
			if f.Kind == kindCount {
				got <- f.Target
			}
		},
		Settled: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
			if o == fdipc.Claimed {
				claimed <- true
				return
			}
			back <- h
		},
	}, map[string]string{"ROLE": "worker", "MARK": "1"})
	count := func() uint64 {
		if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindCount}); err != nil {
			t.Fatal(err)
		}
		return wait(t, "count", got)
	}
	count() // it is up
	var old unix.Rlimit
	// Room for 20 descriptors and no more: those of the frame below do not fit.
	if err := unix.Prlimit(c.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 20, Max: 4096}, &old); err != nil {
		t.Skip(err)
	}
	cs, hs := clients(t, 30)
	if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Handles: slices.Clone(hs)}); err != nil {
		t.Fatal(err)
	}
	for range hs {
		if h := wait(t, "refusal", back); h.Reason() != fdipc.ReasonNoFiles {
			t.Errorf("reason %d", h.Reason())
		}
	}
	if err := unix.Prlimit(c.cmd.Process.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 4096, Max: 4096}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Handles: hs}); err != nil {
		t.Fatal(err)
	}
	for range hs {
		wait(t, "claim", claimed)
	}
	readAll(t, cs)
	for i, cl := range cs {
		if string(cl.got) != "1" {
			t.Errorf("client %d got %q", i, cl.got)
		}
	}
}

// More descriptors in flight than the user may have: sending waits and goes on. Root is exempt, so this runs as nobody.
func TestTooManyInFlight(t *testing.T) {
	if os.Getenv("FDIPC_NOBODY") == "" {
		if os.Getuid() != 0 {
			t.Skip("needs root to become another user")
		}
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		// A copy that nobody may execute from where it lies.
		dir, err := os.MkdirTemp("", "fdipc") //nolint:usetesting // t.TempDir is closed to other users
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		_ = os.Chmod(dir, 0o755)
		bin, err := os.ReadFile(exe)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "test"), bin, 0o755); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(filepath.Join(dir, "test"), "-test.run", "^TestTooManyInFlight$", "-test.v")
		cmd.Env = append(os.Environ(), "FDIPC_NOBODY=1")
		cmd.Dir = "/"
		cmd.SysProcAttr = nobody
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v: %s", err, out)
		}
		t.Logf("%s", out)
		return
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 40, Max: 4096}); err != nil {
		t.Fatal(err)
	}
	gate := make(chan struct{})
	claimed := make(chan fdipc.Outcome, 300)
	a, _ := pair(t,
		fdipc.Config{Handler: ignore, Credits: 300, ClaimTimeout: -1, Settled: func(_ *fdipc.Conn, _ *fdipc.Handle, o fdipc.Outcome) { claimed <- o }},
		fdipc.Config{Credits: 300, Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
			<-gate
			for _, h := range f.Handles {
				_ = h.Claim()
				h.Close()
			}
		}})
	src, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	// The same descriptor many times: in flight they count, in the table they do not. It is closed once.
	for range 100 {
		h, err := fdipc.HandleOf(sharedFile{src})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Send(context.Background(), &fdipc.Frame{Kind: 0x40, Handles: []*fdipc.Handle{h}}); err != nil {
			t.Fatal(err)
		}
	}
	retried := make(chan struct{})
	go func() { // it comes to that: 100 are to go, 40 may be in flight
		for tick := time.NewTicker(time.Millisecond); a.Stats().Retried == 0; <-tick.C {
		}
		close(retried)
	}()
	wait(t, "refusal by the kernel", retried)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 4096, Max: 4096}); err != nil {
		t.Fatal(err)
	}
	close(gate)
	for range 100 {
		if o := wait(t, "outcome", claimed); o != fdipc.Claimed {
			t.Fatal(o)
		}
	}
	t.Logf("retried %d times", a.Stats().Retried)
}

// sharedFile lends its descriptor: closing it does nothing.
type sharedFile struct{ f *os.File }

func (s sharedFile) SyscallConn() (syscallRawConn, error) { return s.f.SyscallConn() }

// A named socket talks to whom it may, and counts the others.
func TestNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	admit := make(chan bool, 2)
	l, err := fdipc.Listen(path, func(c fdipc.Credentials) bool {
		if c.PID != os.Getpid() || c.UID != os.Getuid() || c.GID != os.Getgid() {
			t.Errorf("credentials %+v", c)
		}
		return <-admit
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, ok := range []bool{true, false} {
		admit <- ok
		got := make(chan string, 1)
		dialed, err := fdipc.Dial(context.Background(), path, fdipc.Config{Handler: ignore})
		if err != nil {
			t.Fatal(err)
		}
		c, err := l.Accept(fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { got <- string(f.Payload) }})
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			if err := dialed.Send(context.Background(), &fdipc.Frame{Kind: 0x40, Payload: []byte("hello")}); err != nil {
				t.Fatal(err)
			}
			if s := wait(t, "frame", got); s != "hello" {
				t.Error(s)
			}
			c.Close()
		} else {
			wait(t, "end", c.Done())
			if !errors.Is(c.Err(), fdipc.ErrStranger) || l.Strangers() != 1 {
				t.Errorf("%v, %d strangers", c.Err(), l.Strangers())
			}
		}
		wait(t, "end", dialed.Done())
	}
}

// A small frame on a lane in use costs no allocation, on either side.
func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	got := make(chan struct{}, 1)
	a, _ := pair(t, fdipc.Config{Handler: ignore}, fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) { got <- struct{}{} }})
	ctx := context.Background()
	f := &fdipc.Frame{Kind: 0x40, Lane: fdipc.Data, Trace: fdipc.TraceContext{1}, Payload: make([]byte, 64)}
	n := testing.AllocsPerRun(2000, func() {
		if err := a.Send(ctx, f); err != nil {
			t.Fatal(err)
		}
		<-got
	})
	if n > 0 {
		t.Errorf("%v allocations a frame", n)
	}
}

// The other ends of a Conn that a caller can meet, each through the public API.
func TestEnds(t *testing.T) {
	raw := func() (*os.File, *os.File) {
		l, r, err := fdipc.Socketpair()
		if err != nil {
			t.Fatal(err)
		}
		return l, r
	}
	end := func(f *os.File, cfg fdipc.Config) error {
		cfg.Handler = ignore
		c, err := fdipc.New(f, cfg)
		if err != nil {
			t.Fatal(err)
		}
		wait(t, "end", c.Done())
		return c.Err()
	}
	t.Run("ErrPeerLost", func(t *testing.T) {
		l, r := raw()
		r.Close()
		if err := end(l, fdipc.Config{}); !errors.Is(err, fdipc.ErrPeerLost) {
			t.Error(err)
		}
	})
	t.Run("ErrHandshake", func(t *testing.T) {
		l, r := raw()
		defer r.Close()
		if err := end(l, fdipc.Config{HandshakeTimeout: time.Millisecond}); !errors.Is(err, fdipc.ErrHandshake) {
			t.Error(err)
		}
	})
	t.Run("ErrProtocol", func(t *testing.T) {
		l, r := raw()
		defer r.Close()
		_, _ = r.Write([]byte("GET / HTTP/1.1\r\n\r\n"))
		if err := end(l, fdipc.Config{}); !errors.Is(err, fdipc.ErrProtocol) {
			t.Error(err)
		}
	})
	t.Run("ErrVersion", func(t *testing.T) {
		l, r := raw()
		defer r.Close()
		_, _ = r.Write(fdipc.HelloOf(2, 3))
		if err := end(l, fdipc.Config{}); !errors.Is(err, fdipc.ErrVersion) {
			t.Error(err)
		}
	})
	t.Run("not a channel", func(t *testing.T) {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		before := fdipctest.Leaks(t)
		if _, err := fdipc.New(f, fdipc.Config{Handler: ignore}); err == nil {
			t.Error("New took it")
		}
		before()
	})
	t.Run("bad Config", func(t *testing.T) {
		l, r := raw()
		defer r.Close()
		_, err := fdipc.New(l, fdipc.Config{Credits: -1, QueueBytes: 1 << 31})
		if err == nil || !strings.Contains(err.Error(), "Credits") || !strings.Contains(err.Error(), "QueueBytes") || !strings.Contains(err.Error(), "Handler") {
			t.Error(err)
		}
	})
	t.Run("blocking descriptor", func(t *testing.T) {
		p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan struct{})
		a, err := fdipc.New(os.NewFile(uintptr(p[0]), "a"), fdipc.Config{Handler: ignore})
		if err != nil {
			t.Fatal(err)
		}
		b, err := fdipc.New(os.NewFile(uintptr(p[1]), "b"), fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) { close(got) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Send(context.Background(), &fdipc.Frame{Kind: 0x40}); err != nil {
			t.Fatal(err)
		}
		wait(t, "frame", got)
		a.Close()
		wait(t, "end", b.Done())
	})
}
