package actors

import (
	"fmt"
	"log/slog"

	"github.com/asynkron/protoactor-go/actor"
)

// HandsOver is an actor of a master that lives on when the master's program is replaced in place:
// see [System.Suspend]. It must have a name. The old image of the process calls HandOver, the new
// one calls TakeOver of the actor that is spawned with the same name. An actor without these
// methods, in either image, begins anew: to those that monitor it, it has ended with [ErrReplaced].
//
// Both run on the actor's goroutine, as Receive does, and a panic in them ends the actor.
type HandsOver interface {
	actor.Actor

	// HandOver returns the state. The messages that came before are handled by then, or wait: those
	// go along if their types can cross processes, in order. If the replacement does not take
	// place, the actor goes on: HandOver changes nothing that it needs. An error keeps the
	// replacement from taking place.
	HandOver(ctx actor.Context) (Handover, error)

	// TakeOver takes the state, after Started and before any other message. With an error the start
	// has failed, as if Started had, and the next start of the actor gets the state again. What
	// TakeOver sends leaves when the replacement is certain.
	TakeOver(ctx actor.Context, h Handover) error
}

// Handover is the state of an actor, on its way from one image of the process to the next.
type Handover struct {
	Version int    // the program's number for how State is encoded
	State   []byte // encoded as the program likes
	// Asks are the senders of the asks of other processes that the actor has taken and will answer
	// later. An ask that is neither here nor answered ends with [ErrReplaced].
	Asks []*actor.PID
}

// handOverRequest asks an actor for its state. It is the actor's until done is closed.
type handOverRequest struct {
	done     chan struct{}
	handover *Handover // nil: it has none
	err      error
}

func (w *wrapper) handOver(ctx actor.Context, req *handOverRequest) {
	defer close(req.done)
	user, ok := original(w.user).(HandsOver)
	if !ok || w.failed || w.stopping || w.inc.killed.Load() {
		return
	}
	w.recovering(ctx, func() {
		h, err := user.HandOver(ctx)
		if req.err = err; err == nil {
			req.handover = &h
		}
	})
	if w.failed {
		req.err = w.inc.downError()
	}
}

// takeOver gives the actor, which has started, the state of its predecessor.
func (w *wrapper) takeOver(ctx actor.Context, h *Handover) {
	user, ok := original(w.user).(HandsOver)
	if !ok {
		w.inc.proc.log.Warn("an actor does not take over the state of its predecessor", slog.String("actor", w.inc.id))
		return
	}
	for _, ask := range h.Asks {
		w.inc.addUnanswered(ask)
	}
	if err := user.TakeOver(ctx, *h); err != nil {
		Exit(fmt.Errorf("take over version %d: %w", h.Version, err))
	}
	w.inc.mu.Lock()
	w.inc.tookOver = true
	w.inc.mu.Unlock()
}
