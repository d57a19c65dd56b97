package dispatch

import (
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/faults"
	"github.com/coppice-go/coppice/netactor/internal/socket"
)

func newTestSource(t *testing.T) (*acceptSocket, string) {
	t.Helper()
	s, err := socket.Open(socket.SocketSpec{Request: netactor.Request{Network: "tcp4", Address: "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	_, address, _ := s.Address()
	h, err := s.Handle()
	if err != nil {
		t.Fatal(err)
	}
	src, err := newAcceptSocket(h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(src.close)
	return src, address
}

func TestSourceAccept(t *testing.T) {
	room := func(n int) func() int { return func() int { return n } }
	t.Run("takes no more than there is room for", func(t *testing.T) {
		src, addr := newTestSource(t)
		var clients []net.Conn
		for range 5 {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			clients = append(clients, c)
		}
		got := make([]acceptedConn, 64)
		n, err := src.accept(room(3), got)
		if n != 3 || err != nil {
			t.Fatalf("took %d, %v", n, err)
		}
		if want := clients[0].LocalAddr().String(); got[0].peer.String() != want {
			t.Errorf("peer %s, want %s", got[0].peer, want)
		}
		if n, err := src.accept(room(0), got[3:]); n != 0 || err != errNoRoom {
			t.Fatalf("took %d, %v", n, err)
		}
		src.interrupt()
		m, err := src.accept(room(64), got[3:])
		if m != 2 || err != nil {
			t.Fatalf("took %d, %v", m, err)
		}
		if n, err := src.accept(room(64), got[5:]); n != 0 || err != errDrained {
			t.Fatalf("took %d, %v", n, err)
		}
		for _, a := range got[:5] {
			a.h.Close()
		}
	})
	t.Run("errors leave the connection in the backlog", func(t *testing.T) {
		src, addr := newTestSource(t)
		fail := []error{unix.EINTR, unix.EMFILE, unix.ECONNABORTED}
		src.accept4 = func(fd int, sa *unix.RawSockaddrAny) (int, error) {
			if len(fail) > 0 {
				err := fail[0]
				fail = fail[1:]
				return -1, err
			}
			return rawAccept4(fd, sa)
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got := make([]acceptedConn, 64)
		if n, err := src.accept(room(64), got); n != 0 || !faults.IsShortage(err) {
			t.Fatalf("took %d, %v", n, err)
		}
		if n, err := src.accept(room(64), got); n != 0 || err != unix.ECONNABORTED || faults.IsShortage(err) || broken(err) {
			t.Fatalf("took %d, %v", n, err)
		}
		n, err := src.accept(room(64), got)
		if n != 1 || err != nil {
			t.Fatalf("took %d, %v", n, err)
		}
		got[0].h.Close()
	})
	t.Run("a socket that was shut down is broken", func(t *testing.T) {
		src, _ := newTestSource(t)
		_ = src.rc.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) })
		if n, err := src.accept(room(64), make([]acceptedConn, 64)); n != 0 || !broken(err) {
			t.Errorf("took %d, %v", n, err)
		}
	})
	t.Run("not a listening socket", func(t *testing.T) {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		h, err := fdipc.HandleOf(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := newAcceptSocket(h); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%v", err)
		}
	})
}

func TestClientReset(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	accepted := func() (net.Conn, *net.TCPConn, *balance.PendingConn) {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		tk := new(balance.PendingConn)
		rc, _ := s.(*net.TCPConn).SyscallConn()
		_ = rc.Control(func(fd uintptr) { tk.FD = int(fd) })
		return s, c.(*net.TCPConn), tk
	}
	s, c, tk := accepted()
	if clientReset(tk) {
		t.Error("reset while it lives")
	}
	_ = c.CloseWrite() // still waits for an answer
	_, _ = io.ReadAll(s)
	if clientReset(tk) {
		t.Error("reset while it is half open")
	}
	_ = c.SetLinger(0)
	c.Close()
	for !clientReset(tk) { // until the reset is seen
		runtime.Gosched()
	}
	s.Close()
}
