package coppice

import (
	"testing"
)

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
