package child

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// spareSlot is the worker's side of its slot. A spare has no slot until the master assigns it one,
// and no worker has one while Pool.Prepare runs.
type spareSlot struct {
	current  atomic.Pointer[childproto.AssignFrame] // nil while the worker has no slot
	assigned chan childproto.AssignFrame            // one value: from the handler to awaitSlot
	served   atomic.Int64                           // requests served in the slot
	spent    atomic.Bool                            // the master knows that they are as many as they may be
}

// awaitSlot runs the pool's Prepare, and waits until the worker has a slot.
func (s *Session) awaitSlot() error {
	if f := s.program.Prepare; f != nil {
		if err := f(s.ctx); err != nil {
			return fmt.Errorf("coppice: warm: %w", err)
		}
	}
	w := s.identity
	a := childproto.AssignFrame{Name: w.Name, Slot: w.Slot, Incarnation: w.Incarnation, Requests: w.Requests}
	if w.Slot == pool.Spare {
		if err := s.conn.Send(s.ctx, childproto.NewFrame(childproto.FrameSpareReady, struct{}{})); err != nil {
			return fmt.Errorf("coppice: warm: %w", err)
		}
		select {
		case a = <-s.spare.assigned:
			s.showName(a.Name)
		case <-s.ctx.Done():
			return context.Canceled // asked to stop: an orderly end
		}
	}
	s.spare.current.Store(&a)
	return nil
}

// assign takes a spare's slot from a frame of the master.
func (s *Session) assign(a childproto.AssignFrame) {
	select {
	case s.spare.assigned <- a:
	default: // a second one changes nothing
	}
}

// HasSlot reports whether the child has its slot; a worker has none while its Prepare runs.
func (s *Session) HasSlot() bool { return s.spare.current.Load() != nil }

// CountRequests counts requests, which the answers to heartbeats tell the master, and tells it once
// when the worker has served as many as it may: at the next count if the channel takes no frame
// now.
func (s *Session) CountRequests(n int) {
	a := s.spare.current.Load()
	if a == nil {
		return
	}
	if now := s.spare.served.Add(int64(n)); a.Requests != 0 && now >= a.Requests && !s.spare.spent.Load() &&
		s.conn.TrySend(childproto.NewFrame(childproto.FrameRequestsSpent, struct{}{})) == nil {
		s.spare.spent.Store(true)
	}
}

// Report counts what the program itself finds good and bad.
func (s *Session) Report(good, bad int) { s.figures.Report(uint64(max(good, 0)), uint64(max(bad, 0))) }
