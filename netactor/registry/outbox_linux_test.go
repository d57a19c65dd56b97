package registry

import (
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// TestSendWhileSuspended: what the table sends while a Conn is suspended for an exec that does not
// take place leaves when it goes on, and in order.
func TestSendWhileSuspended(t *testing.T) {
	x, y, err := fdipc.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	ready, got := make(chan struct{}), make(chan uint64, 2)
	conn, err := fdipc.New(x, fdipc.Config{
		Suspendable: true, Handler: func(*fdipc.Conn, *fdipc.Frame) {}, Ready: func(*fdipc.Conn) { close(ready) },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := fdipc.New(y, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { got <- f.Target }})
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	<-ready
	if _, _, err := conn.Suspend(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := &outbox{c: conn}
	o.send(&fdipc.Frame{Kind: wire.KindShut, Target: 1})
	o.send(&fdipc.Frame{Kind: wire.KindShut, Target: 2})
	conn.Resume()
	for _, want := range []uint64{1, 2} {
		select {
		case n := <-got:
			if n != want {
				t.Errorf("frame %d came in place of %d", n, want)
			}
		case <-t.Context().Done():
			t.Fatal("it never came")
		case <-peer.Done():
			t.Fatal(peer.Err())
		}
	}
}
