package actors

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/fdipc"
)

// localProcess is what the parts of a System know of the process that they are in. It is immutable
// but for its counters, and depends on no other part.
type localProcess struct {
	address     string
	host, boot  string // of its host; empty without a cluster
	incarnation uint64
	sendWait    time.Duration // bounds a send that has no context
	log         *slog.Logger

	closed atomic.Bool // the System was shut down

	mark atomic.Pointer[[2]string] // a header of each message to another process, and its value

	leaked    atomic.Int64  // handlers that go on after their actor was killed
	refused   atomic.Uint64 // frames of unknown processes and incarnations
	malformed atomic.Uint64 // frames that could not be read
	lost      atomic.Uint64 // notices for a peer that does not read
}

// isLocal reports whether pid is an actor of this process.
func (lp *localProcess) isLocal(pid *actor.PID) bool { return pid.Address == lp.address }

// frame returns the header of a frame of this process.
func (lp *localProcess) frame(kind fdipc.Kind, lane fdipc.Lane) fdipc.Frame {
	return fdipc.Frame{Kind: kind, Lane: lane, Target: lp.incarnation}
}

// countMalformed counts a frame of the process from that cannot be read, or that it may not send.
func (lp *localProcess) countMalformed(from string, kind fdipc.Kind) {
	lp.malformed.Add(1)
	lp.log.Debug("malformed frame", slog.String("from", from), slog.Int("kind", int(kind)))
}

// recoverHook calls f, a user's function, and logs its panic.
func (lp *localProcess) recoverHook(what string, f func()) {
	defer func() {
		if v := recover(); v != nil {
			lp.log.Error("panic in "+what, slog.Any("panic", v))
		}
	}()
	f()
}

// closeHandles closes the handles of a message that reaches no actor.
func (lp *localProcess) closeHandles(msg any) {
	if carrier, ok := msg.(HandleCarrier); ok {
		lp.recoverHook("TakeHandles", func() { closeValues(carrier.TakeHandles()) })
	}
}

// noContext is the context of a Send that has none, an actor's or a peer's. It waits for at most
// SendWait.
var noContext context.Context = withoutContext{context.Background()}

type withoutContext struct{ context.Context }
