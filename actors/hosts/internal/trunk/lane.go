package trunk

import (
	"context"

	"github.com/coppice-go/coppice/fdipc"
)

// Sink takes the frames of a lane; an [fdipc.Conn] is one. The frame and its payload are borrowed until
// the call returns. For each of its two flows, Control and Data, one call is made at a time.
type Sink interface {
	// TrySend must not block. It returns [fdipc.ErrFull] if there is no room now.
	TrySend(f *fdipc.Frame) error
	// Send is called after ErrFull. It may block until ctx ends, which happens when the lane ends
	// without more to deliver.
	Send(ctx context.Context, f *fdipc.Frame) error
}

// Lane carries frames between a process of this host and one of another. It is a Sink itself: what is
// sent to it goes to the peer's sink. All methods may be called concurrently.
type Lane struct{}

// LaneEnd says how a lane ended.
type LaneEnd struct {
	// Reason is what the peer gave to Lane.End, at most 4 KiB; if it ended the lane.
	Reason []byte
	// Err is nil if the peer ended the lane. Otherwise it wraps ErrLost, or it is the error of the
	// sink: then the peer does not know yet, and the lane is to be ended with a reason.
	Err error
}

// Error says how the lane ended.
func (e *LaneEnd) Error() string { return "lane ended" }

// Unwrap returns ErrEnded and Err.
func (e *LaneEnd) Unwrap() []error { return nil }

// Trunk returns the trunk of the lane.
func (l *Lane) Trunk() *Trunk { return nil }

// Accept tells the opener that the lane is open, with a reply of at most 4 KiB. It is called once, before
// the first Send, for a lane that came to Config.Open.
func (l *Lane) Accept(reply []byte) error { return nil }

// Join has what comes on the lane, and what came before, go to sink. It is called once. ended is called
// once, after the last frame, if the lane ends by something else than its End here; on a goroutine of
// the trunk, and it must not block.
func (l *Lane) Join(sink Sink, ended func(*LaneEnd)) {}

// Send sends a frame, and waits for credit and for room as long as it must. The frame must have no
// handles. An error means that the peer does not get it. A nil error says nothing of its arrival.
//
// Errors: ErrEnded, ErrLost, fdipc.ErrTooBig, that of ctx. fdipc.ErrKind if it has handles.
func (l *Lane) Send(ctx context.Context, f *fdipc.Frame) error { panic("not yet") }

// TrySend is Send without waiting: it returns fdipc.ErrFull if it would. A frame of more than 32 KiB is
// ErrTooBig here.
func (l *Lane) TrySend(f *fdipc.Frame) error { panic("not yet") }

// End ends the lane: the peer gets reason, at most 4 KiB, after what was sent before. Frames for the sink
// that are still here are dropped, and its Send is cancelled. It does not wait. Again, or after another
// end, it does nothing.
func (l *Lane) End(reason []byte) {}
