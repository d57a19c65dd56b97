package coppice

import (
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// A child that has just ended may be sent a link, which its master takes back as the
// channel ends. That is no bad frame: it stood among the last lines of the child, which say
// why a reload failed.
func TestLinkTakenBack(t *testing.T) {
	c := newChild(Config{}.defaults(), &node{})
	got := make(chan error, 1)
	here, back := make(chan struct{}), make(chan struct{}) // closed when the link is
	mine, its := fdipc.Pipe(fdipc.Config{
		ClaimTimeout: -1, Handler: func(*fdipc.Conn, *fdipc.Frame) {},
		Resolved: func(_ *fdipc.Conn, h *fdipc.Handle, _ fdipc.Outcome) {
			_ = h.Close()
			close(back)
		},
	}, fdipc.Config{Handler: func(_ *fdipc.Conn, f *fdipc.Frame) {
		close(here)
		<-back
		got <- c.link(f)
	}})
	defer its.Close()
	a, b, err := fdipc.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	h, err := fdipc.HandleOf(b)
	if err != nil {
		t.Fatal(err)
	}
	if err := mine.Send(t.Context(), childproto.NewFrame(childproto.FrameLink, childproto.Sibling{}, h)); err != nil {
		t.Fatal(err)
	}
	<-here
	if err := mine.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-got:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("no frame")
	}
	if len(c.links) != 0 {
		t.Errorf("%d links", len(c.links))
	}
}

// TestAppointWhoHasEnded: a listener process may end before its appointment is dealt with. It
// stood in the book as the one that accepts, until the next was appointed.
func TestAppointWhoHasEnded(t *testing.T) {
	h := newChildren(nil, nil, nil)
	p := &poolWorker{linkedToAll: make(chan struct{})}
	h.setListener(t.Context(), p)
	<-p.linkedToAll // who waits for it goes on
	if h.listener != nil {
		t.Error("a process that has ended is the listener process")
	}
}
