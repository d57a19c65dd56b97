package actors

import (
	"fmt"
	"io"

	"github.com/coppice-go/coppice/fdipc"
)

// HandleCarrier is a message that carries open handles: connections, listeners, packet connections,
// files. The handles move with the message, in any direction; its other fields cross as those of
// any message, so that the type is registered or protobuf, and leaves the handles out (tag
// `cbor:"-"`).
//
// Within a process the message moves as it is and neither method is called. Between processes the
// sender's TakeHandles is called, then at the other end SetHandles of the decoded message. The
// handles of a message that reaches no actor are closed, so that a peer sees the end of a
// connection and does not wait.
type HandleCarrier interface {
	// TakeHandles gives the handles up, in an order of the type's own: values that [fdipc.HandleOf]
	// takes, or *fdipc.Handle. The message has none afterwards.
	TakeHandles() []any
	// SetHandles takes ownership of the handles in that order and puts them into the message,
	// converted with Handle.Conn and the like, which is the claim. How many there are is the peer's
	// word. On an error, or a panic, the message is refused, with all handles that were not
	// converted, and those that TakeHandles then gives up are closed.
	SetHandles(handles []*fdipc.Handle) error
}

// takeHandles returns the handles of msg, owned by the caller. On an error they are closed.
func takeHandles(msg any) ([]*fdipc.Handle, error) {
	carrier, ok := msg.(HandleCarrier)
	if !ok {
		return nil, nil
	}
	values := carrier.TakeHandles()
	handles := make([]*fdipc.Handle, 0, len(values))
	for i, v := range values {
		h, ok := v.(*fdipc.Handle)
		if !ok {
			var err error
			if h, err = fdipc.HandleOf(v); err != nil {
				recoverHandles(handles)
				closeValues(values[i:])
				return nil, fmt.Errorf("%w: handle %d: %w", ErrMalformed, i, err)
			}
		}
		handles = append(handles, h)
	}
	return handles, nil
}

// giveHandles puts received handles into msg. On an error msg may have taken some; the others are
// still on offer.
func giveHandles(msg any, handles []*fdipc.Handle) (err error) {
	carrier, ok := msg.(HandleCarrier)
	if !ok {
		if len(handles) > 0 {
			return fmt.Errorf("%w: %T carries no handles, %d came", ErrMalformed, msg, len(handles))
		}
		return nil
	}
	defer func() { // a user's method: fewer may have come than it wants
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: handles of %T: panic: %v", ErrMalformed, msg, v)
		}
	}()
	if err := carrier.SetHandles(handles); err != nil {
		return fmt.Errorf("%w: handles of %T: %w", ErrMalformed, msg, err)
	}
	return nil
}

// recoverHandles closes handles whose frame was not sent.
func recoverHandles(handles []*fdipc.Handle) {
	for _, h := range handles {
		h.Close()
	}
}

func closeValues(values []any) {
	for _, v := range values {
		if c, ok := v.(io.Closer); ok {
			c.Close()
		}
	}
}
