package fdipc_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

func init() {
	roles["lingerer"] = func(f *os.File, _ map[string]string) {
		c, err := fdipc.New(f, fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
			file, err := f.Handles[0].File()
			if err != nil {
				panic(err)
			}
			rc, _ := file.SyscallConn()
			_ = rc.Control(func(fd uintptr) {
				_ = unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600})
				for err := error(nil); err == nil; { // until there is no room
					_, err = unix.Write(int(fd), make([]byte, 1<<16))
				}
			})
			go file.Close() // not waited for: which copy is the last, is not known
			_ = c.TrySend(&fdipc.Frame{Kind: kindCollect})
		}})
		if err != nil {
			panic(err)
		}
		<-c.Done()
		os.Exit(0)
	}
}

// TestReceiverMakesConnectionsLinger: the other side claims connections, has them linger for an
// hour with bytes that their clients do not read, and closes its copies first. This side, whose
// copies are the last ones then, goes on: its garbage collector, what it offers next, and the end
// of its Conn.
func TestReceiverMakesConnectionsLinger(t *testing.T) {
	told := make(chan struct{}, 1)
	c := spawn(t, fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) { told <- struct{}{} }}, map[string]string{"ROLE": "lingerer"})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 20 {
		client, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		conn, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		file, err := conn.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		nfd, err := unix.FcntlInt(file.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err == nil {
			err = errors.Join(unix.SetNonblock(nfd, true), file.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
		h := fdipc.HandleFD(nfd)
		if i%2 == 0 {
			h.Known(fdipc.HandleTCP) // as of a listener's own
		}
		if err := c.Send(context.Background(), &fdipc.Frame{Kind: kindConn, Handles: []*fdipc.Handle{h}}); err != nil {
			t.Fatal(err)
		}
		wait(t, "claim of a connection", told)
		runtime.GC()
	}
	c.Close()
	wait(t, "end of the sender's Conn", c.Done())
}

// TestQueuedInListenerHandle: what a client has queued in a Unix listener, a connection that
// lingers for an hour, does not hold up the close of a handle on it.
func TestQueuedInListenerHandle(t *testing.T) {
	for typ, kind := range map[int]fdipc.HandleKind{unix.SOCK_STREAM: fdipc.HandleUnixListener, unix.SOCK_SEQPACKET: fdipc.HandleUnixPacketListener} {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close() // which ends the wait
		var fds [3]int   // the listener, its client, what that sends
		for i, family := range []int{unix.AF_UNIX, unix.AF_UNIX, unix.AF_INET} {
			typ := typ
			if family == unix.AF_INET {
				typ = unix.SOCK_STREAM
			}
			if fds[i], err = unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0); err != nil {
				t.Fatal(err)
			}
		}
		at := &unix.SockaddrUnix{Name: filepath.Join(t.TempDir(), "s")}
		err = errors.Join(
			unix.Bind(fds[0], at), unix.Listen(fds[0], 1), unix.SetNonblock(fds[0], true), unix.Connect(fds[1], at),
			unix.Connect(fds[2], &unix.SockaddrInet4{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}),
			unix.SetNonblock(fds[2], true),
		)
		for err == nil { // until there is no room
			_, err = unix.Write(fds[2], make([]byte, 1<<16))
		}
		if err != unix.EAGAIN {
			t.Fatal(err)
		}
		if err := errors.Join(
			unix.SetsockoptLinger(fds[2], unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}),
			unix.Sendmsg(fds[1], []byte("x"), unix.UnixRights(fds[2]), nil, 0),
			unix.Close(fds[2]), unix.Close(fds[1]),
		); err != nil {
			t.Fatal(err)
		}
		h := fdipc.HandleFD(fds[0])
		if k := h.Kind(); k != kind {
			t.Fatalf("kind %v, want %v", k, kind)
		}
		closed := make(chan struct{})
		go func() { h.Close(); close(closed) }() // ends with ln
		wait(t, "close of the handle", closed)
	}
}
