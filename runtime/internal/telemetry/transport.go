package telemetry

import (
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/tracing"
)

// Transport counts the traffic on the channels of one process. The counts of a channel that has
// ended stay in the sum. The zero value has no channels.
type Transport struct {
	mu    sync.Mutex
	conns []*fdipc.Conn
	past  fdipc.Stats // of channels that have ended
}

// Add adds a channel to the count. It releases channels that have ended, because the total may
// never be asked for and a process may outlive a great many channels.
func (w *Transport) Add(c *fdipc.Conn) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.foldEndedLocked()
	w.conns = append(w.conns, c)
}

// Total returns the sum over all channels so far.
func (w *Transport) Total() fdipc.Stats {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.foldEndedLocked()
	sum := w.past
	for _, c := range w.conns {
		addStats(&sum, c.Stats())
	}
	return sum
}

// foldEndedLocked adds the counts of channels that have ended to past, and forgets these channels.
func (w *Transport) foldEndedLocked() {
	w.conns = slices.DeleteFunc(w.conns, func(c *fdipc.Conn) bool {
		over := childproto.IsClosed(c.Done())
		if over { // its counters no longer change
			addStats(&w.past, c.Stats())
		}
		return over
	})
}

func addStats(sum *fdipc.Stats, s fdipc.Stats) {
	sum.FramesSent += s.FramesSent
	sum.FramesReceived += s.FramesReceived
	sum.BytesSent += s.BytesSent
	sum.BytesReceived += s.BytesReceived
	sum.Claimed += s.Claimed
	sum.Refused += s.Refused
	sum.Returned += s.Returned
}

// Register makes m emit the runtime's metrics of a process: its channels and mailboxes. m may be
// nil.
func Register(m *tracing.Meter, w *Transport, system *actors.System) {
	if m == nil {
		return
	}
	sent, received := tracing.KeyDirection.String("transmit"), tracing.KeyDirection.String("receive")
	outcome := func(o tracing.HandoffOutcome) attribute.KeyValue { return tracing.KeyHandoffOutcome.String(string(o)) }
	m.Watch(func(emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
		s := w.Total()
		emit(tracing.TransportBytes, int64(s.BytesSent), sent)
		emit(tracing.TransportBytes, int64(s.BytesReceived), received)
		emit(tracing.TransportFrames, int64(s.FramesSent), sent)
		emit(tracing.TransportFrames, int64(s.FramesReceived), received)
		emit(tracing.TransportFDs, int64(s.Claimed), outcome(tracing.Claimed))
		emit(tracing.TransportFDs, int64(s.Refused), outcome(tracing.Refused))
		emit(tracing.TransportFDs, int64(s.Returned), outcome(tracing.Returned))
		emit(tracing.MailboxDepth, int64(system.Stats().Waiting))
	})
}
