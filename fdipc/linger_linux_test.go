package fdipc_test

import (
	"context"
	"errors"
	"net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/fdipc/fdipctest"
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

// TestReceiverMakesConnectionsLinger: the other side claims connections, has them linger for an hour with bytes that
// their clients do not read, and closes its copies first. This side, whose copies are the last ones then, goes on: its
// garbage collector, what it offers next, and the end of its Conn.
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
		fdipctest.Wait(t, "claim of a connection", told)
		runtime.GC()
	}
	c.Close()
	fdipctest.Wait(t, "end of the sender's Conn", c.Done())
}
