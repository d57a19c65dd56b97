package registry

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/netactor/internal/socket"
)

// ErrNotSuspended is the error of [Table.State] for a Table that does not hold its effects back.
var ErrNotSuspended = errors.New("netactor: the table of sockets is not suspended")

// lookAgain is the pause between two looks at what Suspend waits for.
const lookAgain = 5 * time.Millisecond

// Suspend makes the Table hold back what it does, until Continue: it opens and closes no socket and
// sends nothing. It still takes calls and frames. It returns when nothing is under
// way any more: sockets being opened or tried again, frames that a peer has not taken. Then another
// image of the program can go on with the Table; see State.
//
// If ctx ends before, nothing is held back, and the error says what was under way.
func (t *Table) Suspend(ctx context.Context) error {
	for {
		t.mu.Lock()
		why := t.underWayLocked()
		t.suspended = t.suspended || why == ""
		t.mu.Unlock()
		if why == "" {
			socket.Files.WaitRemoved(socket.RemovalTimeout)
			return nil
		}
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return fmt.Errorf("netactor: suspend the table of sockets: %s: %w", why, ctx.Err())
		}
	}
}

// underWayLocked returns what does not go through an exec, or "".
func (t *Table) underWayLocked() string {
	switch {
	case t.suspended:
		return ""
	case t.busy || len(t.todo) > 0:
		return "sockets are being opened or sent"
	case t.retries > 0:
		return "the master is short of what a socket takes"
	}
	for _, s := range t.state.sockets {
		for _, p := range s.waiting {
			if s.phase == pending && (!s.awaitsPort || p.worker == 0) {
				return s.title() + " is being opened"
			}
		}
	}
	for key, s := range t.sockets { // no goroutine works on todo
		if s.reopening || len(s.waiting) > 0 {
			return fmt.Sprintf("socket %d is being opened again", key.number)
		}
	}
	for id, o := range t.workers {
		if o.waits() {
			return fmt.Sprintf("worker %d does not take its frames", id)
		}
	}
	if t.listenerProcess != nil && t.listenerProcess.waits() {
		return "the listener process does not take its frames"
	}
	return ""
}

// waits reports whether frames wait for the peer.
func (o *outbox) waits() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.queue) > 0
}

// Continue ends Suspend, and sets going what Restore has returned: what was held back is done, in
// order. A listener process, and workers, that were not attached and added since Restore are to be
// detached and removed before.
func (t *Table) Continue() {
	t.mu.Lock()
	was := t.suspended
	t.suspended = false
	t.mu.Unlock()
	if was {
		t.step(func() (out []effect) {
			for number, r := range t.restored {
				t.repairs[number] = r
				out = append(out, t.state.broken(number)...)
			}
			if t.restored != nil && len(t.sockets) > 0 {
				out = append([]effect{{kind: doWatch}}, out...)
			}
			t.restored = nil
			return out
		})
	}
}
