package telemetry

import (
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// Channels that have ended are counted and not kept, even if the total is never asked for.
func TestEndedChannelsAreLetGo(t *testing.T) {
	var w Transport
	var sent uint64
	heard := make(chan struct{}, 1)
	cfg := fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) { heard <- struct{}{} }}
	for range 10 {
		a, b := fdipc.Pipe(cfg, cfg)
		w.Add(a)
		if err := a.Send(t.Context(), childproto.NewFrame(childproto.FrameStop, childproto.StopRequest{})); err != nil {
			t.Fatal(err)
		}
		<-heard
		for _, c := range []*fdipc.Conn{a, b} {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			<-c.Done()
		}
		sent += a.Stats().FramesSent
		if len(w.conns) != 1 {
			t.Fatalf("%d channels are kept", len(w.conns))
		}
	}
	if got := w.Total().FramesSent; got != sent || sent == 0 {
		t.Errorf("%d frames sent, want %d", got, sent)
	}
	if len(w.conns) != 0 {
		t.Errorf("%d channels are kept", len(w.conns))
	}
}
