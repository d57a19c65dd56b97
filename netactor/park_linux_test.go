package netactor_test

import (
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// TestParkOfStranger: a worker that gives back what is no connection of the listener, or names an
// address that is not the client's, gets it refused, or is not believed.
func TestParkOfStranger(t *testing.T) {
	tr := newTree(t, false)
	w, taker := tr.worker(0), tr.worker(1)
	ln := taker.mustListen(netactor.Request{Network: "tcp", Address: "127.0.0.1:0"})
	tr.joined(1)
	number := tr.stats().Number
	give := func(v any) *fdipc.Handle {
		t.Helper()
		h, err := fdipc.HandleOf(v)
		if err != nil {
			t.Fatal(err)
		}
		h.SetAccepted(fdipc.Accepted{Remote: netip.MustParseAddrPort("203.0.113.9:1")})
		if err := w.link[1].Send(testContext(t), &fdipc.Frame{Kind: wire.KindPark, Target: number, Handles: []*fdipc.Handle{h}}); err != nil {
			t.Fatal(err)
		}
		return h
	}
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
		give(v)
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
	give(c)
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
