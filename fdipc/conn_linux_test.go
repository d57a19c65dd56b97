package fdipc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// pair joins two Conns by a socket.
func pair(t *testing.T, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) {
	t.Helper()
	l, r, err := fdipc.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	ca, err := fdipc.New(l, a)
	if err != nil {
		t.Fatal(err)
	}
	cb, err := fdipc.New(r, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ca.Close()
		cb.Close()
		wait(t, "end", ca.Done())
		wait(t, "end", cb.Done())
	})
	return ca, cb
}

func ignore(*fdipc.Conn, *fdipc.Frame) {}

func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err = net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server, err = ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func TestHandOver(t *testing.T) {
	outcome := make(chan fdipc.Outcome, 1)
	a, _ := pair(t,
		fdipc.Config{Handler: ignore, Resolved: func(_ *fdipc.Conn, _ *fdipc.Handle, o fdipc.Outcome) { outcome <- o }},
		fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
			c, err := f.Handles[0].Conn()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = c.Write(f.Payload)
			c.Close()
		}})
	client, server := tcpPair(t)
	h, err := fdipc.HandleOf(server)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Send(context.Background(), &fdipc.Frame{Kind: 0x40, Lane: fdipc.Data, Payload: []byte("hello"), Handles: []*fdipc.Handle{h}}); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(client)
	if err != nil || string(b) != "hello" {
		t.Fatalf("client read %q, %v", b, err)
	}
	if o := wait(t, "outcome", outcome); o != fdipc.Claimed {
		t.Fatal(o)
	}
	a.Close()
	wait(t, "end", a.Done())
	if !errors.Is(a.Err(), fdipc.ErrClosed) {
		t.Fatal(a.Err())
	}
}

func TestStream(t *testing.T) {
	got := make(chan int, 1)
	n := 0
	const total = 200000
	a, b := pair(t, fdipc.Config{Handler: ignore}, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
		if int(f.Target) != n {
			t.Errorf("frame %d in place of %d", f.Target, n)
		}
		if n++; n == total {
			got <- n
		}
	}})
	start := time.Now()
	buf := make([]byte, 64)
	for i := range total {
		if err := a.Send(context.Background(), &fdipc.Frame{Kind: 0x40, Lane: fdipc.Data, Target: uint64(i), Payload: buf}); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, "frames", got)
	t.Log(time.Since(start)/total, a.Stats().PacketsSent)
	a.Close()
	wait(t, "end", b.Done())
	if b.Err() != io.EOF {
		t.Fatal(b.Err())
	}
}

// A peer that writes what it may not write into the claim table ends the Conn; what it touched is
// not offered again, the rest comes back.
func TestHostileTable(t *testing.T) {
	outcomes := make(chan fdipc.Outcome, 2)
	held := make(chan *fdipc.Handle, 2)
	a, _ := pair(t, fdipc.Config{Handler: ignore, Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, o fdipc.Outcome) {
		outcomes <- o
		h.Close()
	}}, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { held <- f.Handles[0] }})
	for range 2 {
		client, server := tcpPair(t)
		defer client.Close()
		h, err := fdipc.HandleOf(server)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Send(context.Background(), &fdipc.Frame{Kind: 0x40, Handles: []*fdipc.Handle{h}}); err != nil {
			t.Fatal(err)
		}
	}
	bad, good := wait(t, "handle", held), wait(t, "handle", held)
	fdipc.Scribble(bad)
	wait(t, "end", a.Done())
	if !errors.Is(a.Err(), fdipc.ErrProtocol) || a.Stats().Corrupt != 1 {
		t.Errorf("%v, %+v", a.Err(), a.Stats())
	}
	got := map[fdipc.Outcome]int{wait(t, "outcome", outcomes): 1}
	got[wait(t, "outcome", outcomes)]++
	if got[fdipc.Claimed] != 1 || got[fdipc.Returned] != 1 {
		t.Errorf("%v", got)
	}
	if err := good.Claim(); !errors.Is(err, fdipc.ErrRevoked) {
		t.Error(err)
	}
	bad.Close()
}
