package coppice

import (
	"slices"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// Channels that have ended are counted and not kept, though nobody asks for the total.
func TestWiresLetGo(t *testing.T) {
	var w transportStats
	var sent uint64
	heard := make(chan struct{}, 1)
	cfg := fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) { heard <- struct{}{} }}
	for range 10 {
		a, b := fdipc.Pipe(cfg, cfg)
		w.add(a)
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
	if got := w.total().FramesSent; got != sent || sent == 0 {
		t.Errorf("%d frames sent, want %d", got, sent)
	}
	if len(w.conns) != 0 {
		t.Errorf("%d channels are kept", len(w.conns))
	}
}

func TestWorkersOf(t *testing.T) {
	for _, row := range []struct {
		name  string
		nodes []Tree
		want  []string
	}{
		{"all run", []Tree{{Name: "web/0", State: "running"}, {Name: "web/1", State: "running"}}, []string{"running", "running"}},
		{"one restarts", []Tree{{Name: "web/0", State: "restarting"}, {Name: "web/1", State: "running"}, {Name: "web/0", State: "starting"}}, []string{"running", "starting"}},
		{"one starts first", []Tree{{Name: "0", State: "starting"}, {Name: "web/0", State: "starting"}}, []string{"starting"}},
		{"one waits for its delay", []Tree{{Name: "web/0", State: "restarting"}}, []string{"restarting"}},
		{"a reload", []Tree{{Name: "web/0", State: "running"}, {Name: "web/0", State: "starting"}, {Name: "web/0", State: "stopping"}}, []string{"running", "starting", "stopping"}},
		{"a spare", []Tree{{Name: "web/0", State: "running"}, {Name: "web", Role: "spare", State: "running"}}, []string{"running", "spare"}},
	} {
		got := workersOf(Tree{Children: row.nodes}, "web")
		slices.Sort(got)
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
	}
}
