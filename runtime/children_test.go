package coppice

import (
	"log/slog"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// TestSetListenerThatHasEnded: a listener process may end before setListener is called for it. It
// used to be registered as the process that accepts, until the next was registered.
func TestSetListenerThatHasEnded(t *testing.T) {
	h := newChildren(nil, nil, nil)
	p := &poolWorker{linkedToAll: make(chan struct{})}
	h.setListener(t.Context(), p)
	<-p.linkedToAll // waiting for it does not block
	if h.listener != nil {
		t.Error("a process that has ended is the listener process")
	}
}

// TestListenerSetLate: of two listener processes the newer one accepts, in whatever order they are
// made to. After the other order a worker that came later had no link to either, and no reload that
// followed succeeded.
func TestListenerSetLate(t *testing.T) {
	h := newChildren(slog.New(slog.DiscardHandler), nil, nil)
	h.sockets = registry.New(registry.Config{})
	defer h.sockets.Close()
	listeners := map[int]*poolWorker{}
	for id := 2; id <= 3; id++ {
		mine, its := fdipc.Pipe(fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}}, fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) {}})
		defer its.Close()
		defer mine.Close()
		listeners[id] = &poolWorker{hello: childproto.Hello{ID: id}, workerStop: workerStop{conn: mine}, linkedToAll: make(chan struct{})}
		h.add(listeners[id])
	}
	h.setListener(t.Context(), listeners[3])
	h.setListener(t.Context(), listeners[2])
	<-listeners[2].linkedToAll
	if h.listener != listeners[3] {
		t.Error("the older listener process accepts")
	}
}
