package netactor

import "github.com/coppice-go/coppice/fdipc"

// reasonText says why a handle was refused, in few words.
func reasonText(reason uint8) string {
	switch reason {
	case fdipc.ReasonNoFiles:
		return "out of descriptors"
	case fdipc.ReasonOverload, ReasonFull:
		return "queue full"
	case fdipc.ReasonClosed, ReasonClosed:
		return "listener closed"
	}
	return "refused"
}

// suspendedText says why a worker is left alone.
func suspendedText(reason uint8) string {
	if reason == fdipc.ReasonNone {
		return "stalled"
	}
	return reasonText(reason)
}
