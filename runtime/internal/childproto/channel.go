package childproto

import (
	"errors"
	"io"
	"syscall"

	"github.com/coppice-go/coppice/fdipc"
)

// IsClosed reports whether ch is closed. Nothing is ever sent on it.
func IsClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

// IsEnd reports whether err says that a channel has ended.
func IsEnd(err error) bool {
	for _, end := range []error{fdipc.ErrPeerLost, fdipc.ErrClosed, io.EOF, syscall.EPIPE, syscall.ECONNRESET} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}
