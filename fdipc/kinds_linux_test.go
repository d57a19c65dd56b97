package fdipc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

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

// Options of the listening socket are those of the connections it accepts, also after they were
// handed over.
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

// The sender of a claimed connection may still have its copy when the receiver closes: the client
// sees the end at once, unless others may use the connection.
func TestFIN(t *testing.T) {
	p := newPasser(t)
	b := make([]byte, 1)

	client, server := tcpPair(t)
	c := p.pass(dupHandle(t, server))
	c.Close()
	client.SetReadDeadline(time.Now().Add(patience))
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
	client.SetReadDeadline(time.Now().Add(patience))
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
		fdipc.Config{Handler: ignore, Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, _ fdipc.Outcome) { back <- h }},
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

// A listening socket that somebody has shut down looks like a connection. Whoever claims it and
// closes it leaves it as it was: when it listens again, what it accepts is not shut down.
func TestCloseShutListener(t *testing.T) {
	got := make(chan *fdipc.Handle, 1)
	a, _ := pair(t, fdipc.Config{Handler: ignore}, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Handles[0] }})
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "listener")
	defer f.Close()
	listen := func() {
		t.Helper()
		if err := unix.Listen(fd, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	listen()
	if err := unix.Shutdown(fd, unix.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	dup, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Send(context.Background(), &fdipc.Frame{Kind: 0x40, Handles: []*fdipc.Handle{fdipc.HandleFD(dup)}}); err != nil {
		t.Fatal(err)
	}
	h := wait(t, "handle", got)
	if _, err := h.Listener(); !errors.Is(err, fdipc.ErrHandleKind) {
		t.Fatalf("a socket that does not listen as a listener: %v", err)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	listen()
	ln, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := io.WriteString(s, "x"); err != nil {
		t.Errorf("what it accepts: %v", err)
	}
}
