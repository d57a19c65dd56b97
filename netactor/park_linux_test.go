package netactor_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// giveBack sends v to the listener process to be parked for its one listener, and names an address
// that is not the client's.
func (w *testWorker) giveBack(v any) {
	t := w.tree.t
	t.Helper()
	h, err := fdipc.HandleOf(v)
	if err != nil {
		t.Fatal(err)
	}
	h.SetAccepted(fdipc.Accepted{Remote: netip.MustParseAddrPort("203.0.113.9:1")})
	f := &fdipc.Frame{Kind: wire.KindPark, Target: w.tree.stats().Number, Handles: []*fdipc.Handle{h}}
	if err := w.link[1].Send(testContext(t), f); err != nil {
		t.Fatal(err)
	}
}

// TestParkOfStranger: a worker that gives back what is no connection of the listener, or names an
// address that is not the client's, gets it refused, or is not believed.
func TestParkOfStranger(t *testing.T) {
	tr := newTree(t, false)
	w, taker := tr.worker(0), tr.worker(1)
	ln := taker.mustListen(netactor.Request{Network: "tcp", Address: "127.0.0.1:0"})
	tr.joined(1)
	file, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range []any{file, other, packets} {
		w.giveBack(v)
	}
	// A connection of another listener is one all the same; its client sends something.
	elsewhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	client := dial(t, elsewhere.Addr())
	c, err := elsewhere.Accept()
	if err != nil {
		t.Fatal(err)
	}
	w.giveBack(c)
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	got, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if a := got.RemoteAddr().String(); a != client.LocalAddr().String() {
		t.Errorf("the client's address is %s, want %s", a, client.LocalAddr())
	}
	until(t, "the claim", func() bool { return tr.stats().Counts.Claimed == 1 })
	if n := tr.stats().Counts; n.GivenBack != 1 || n.Parked != 0 || n.Accepted != 0 || !n.Balanced() {
		t.Errorf("%+v", n)
	}
}

// TestParkWithoutEpoll: a connection that cannot be parked, for want of descriptors or of memory,
// is offered at once.
func TestParkWithoutEpoll(t *testing.T) {
	for name, watch := range map[string]bool{"no epoll": false, "no room in it": true} {
		t.Run(name, func(t *testing.T) {
			tr := newTree(t, true, func(tr *tree) { tr.hooks.NoWatch = watch })
			w := tr.worker(0)
			ln := w.mustListen(netactor.Request{Network: "tcp", Address: "127.0.0.1:0"})
			tr.joined(1)
			elsewhere, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer elsewhere.Close()
			client := dial(t, elsewhere.Addr())
			c, err := elsewhere.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if !watch {
				var old unix.Rlimit
				_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &old)
				if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1, Max: old.Max}); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) }()
			}
			w.giveBack(c)
			got, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if a := got.RemoteAddr().String(); a != client.LocalAddr().String() {
				t.Errorf("%s came", a)
			}
			got.Close()
			if n := tr.stats().Counts; n.GivenBack != 1 || n.Parked != 0 || !n.Balanced() {
				t.Errorf("%+v", n)
			}
		})
	}
}

// TestParkFIN: the client of a connection that was parked sees its end, though a process that had
// it before keeps a copy: one that is stopped does for ever.
func TestParkFIN(t *testing.T) {
	tr := newTree(t, false, func(tr *tree) { tr.hooks.Park = 1 })
	w := tr.worker(0)
	ln := w.mustListen(netactor.Request{Network: "tcp", Address: "127.0.0.1:0"})
	tr.joined(1)
	elsewhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	var clients []net.Conn
	for range 3 {
		client := dial(t, elsewhere.Addr())
		clients = append(clients, client)
		c, err := elsewhere.Accept()
		if err != nil {
			t.Fatal(err)
		}
		copied, err := c.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		defer copied.Close()
		w.giveBack(c)
		until(t, "it is parked", func() bool { return tr.stats().Counts.GivenBack == uint64(len(clients)) })
		if len(clients) == 1 {
			if _, err := client.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			got, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := got.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			tr.settled(1) // else Close shuts down because the listener process has a copy
			got.Close()
		}
	}
	for i, what := range []string{"closed by the next worker", "closed as the oldest parked"} {
		if _, err := clients[i].Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: %v, want EOF", what, err)
		}
	}
}

// TestParkBound: beyond the bound the connection that was parked first is closed.
func TestParkBound(t *testing.T) {
	tr := newTree(t, false, func(tr *tree) { tr.hooks.Park = 2 })
	w := tr.worker(0)
	w.mustListen(netactor.Request{Network: "tcp", Address: "127.0.0.1:0"})
	tr.joined(1)
	elsewhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer elsewhere.Close()
	var clients []net.Conn
	for n := range 4 {
		clients = append(clients, dial(t, elsewhere.Addr()))
		c, err := elsewhere.Accept()
		if err != nil {
			t.Fatal(err)
		}
		w.giveBack(c)
		until(t, "it is parked", func() bool { return tr.stats().Counts.GivenBack == uint64(n+1) })
	}
	for _, c := range clients[:2] {
		if _, err := c.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the oldest reads %v, want EOF", err)
		}
	}
	until(t, "the count", func() bool { return tr.stats().Counts.ParkedOver == 2 })
	if n := tr.stats().Counts; n.Parked != 2 || !n.Balanced() {
		t.Errorf("%+v", n)
	}
}

// TestParkBetweenListenerProcesses: a listener process ends, and a worker that drains has no link
// to the next one yet. Its connections still move, when the link is there, and no answer asks a
// client to open a new one.
func TestParkBetweenListenerProcesses(t *testing.T) {
	tr := newTree(t, true)
	w := tr.worker(0)
	ln := w.mustListen(loopback)
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	accepted, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	conn := accepted.(netactor.ParkableConn)
	next := tr.worker(1).mustListen(loopback)

	tr.killListener()
	<-w.link[1].Done()
	w.ls.Park()
	ln.Close()
	if !conn.Parks() {
		t.Error("its client is asked to open another connection")
	}
	conn.Idle()
	read := make(chan error, 1)
	go func() {
		_, err := conn.Read(make([]byte, 16))
		read <- err
	}()
	tr.startListener()
	if err := <-read; !errors.Is(err, netactor.ErrParked) {
		t.Fatal(err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	moved, err := next.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer moved.Close()
	if moved.RemoteAddr().String() != client.LocalAddr().String() {
		t.Errorf("a connection of %v came, not of %v", moved.RemoteAddr(), client.LocalAddr())
	}
}
