package actors

import (
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// HandleFrame takes a frame that arrived from the process with an address, and reports whether its
// kind is one of this package's. It is to be called from the Conn's handler, in order per lane. The
// frame is borrowed until return.
//
// It does not wait, but for one case: a message for an actor whose bounded mailbox is full and has
// the policy [Wait] holds up the data lane for at most SendWait. No content of a frame makes it
// panic; what can not be read, or may not be sent by this process, is counted in [Stats] and
// answered where an asker can be told.
func (s *System) HandleFrame(from string, f *fdipc.Frame) bool {
	if f.Kind < wire.FirstKind || f.Kind > wire.LastKind {
		return false
	}
	if p := s.peers.find(from); p != nil && !p.lane {
		return s.frames.handleFrame(p, f)
	}
	s.refused.Add(1)
	f.Refuse(fdipc.ReasonUnknown)
	return true
}

// HandlesLost takes a frame whose handles did not arrive from the process with an address. It is to
// be called from [fdipc.Config].NoFiles of the attached channel. What waits for the frame fails
// with an error that wraps [fdipc.ErrNoFiles]. HandlesLost reports whether the frame's kind is one
// of this package's.
func (s *System) HandlesLost(from string, f *fdipc.Frame) bool {
	if f.Kind < wire.FirstKind || f.Kind > wire.LastKind {
		return false
	}
	if p := s.peers.find(from); p != nil && !p.lane {
		s.frames.handlesLost(p, f)
	}
	return true
}
