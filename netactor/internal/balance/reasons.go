package balance

import (
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// ReasonText returns why a handle was refused, in few words.
func ReasonText(reason uint8) string {
	switch reason {
	case fdipc.ReasonNoFiles:
		return "out of descriptors"
	case fdipc.ReasonOverload, wire.ReasonFull:
		return "queue full"
	case fdipc.ReasonClosed, wire.ReasonClosed:
		return "listener closed"
	}
	return "refused"
}

// SuspendedText returns why a worker is suspended.
func SuspendedText(reason uint8) string {
	if reason == fdipc.ReasonNone {
		return "stalled"
	}
	return ReasonText(reason)
}
