package child

import (
	"context"
	"log/slog"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
)

// Self returns the hello that describes the child. Before a worker has its slot it is a spare of
// its pool.
func (s *Session) Self() childproto.Hello {
	self := s.identity
	if a := s.spare.current.Load(); a != nil {
		self.Name, self.Slot, self.Incarnation = a.Name, a.Slot, a.Incarnation
	} else {
		self.Name, self.Slot, self.Incarnation = self.Path+"/spare", pool.Spare, 0
	}
	return self
}

// Ready tells the master that the worker is ready. Further calls return the result of the first.
func (s *Session) Ready() error { return s.ready() }

// System returns the child's actors; nil before Run has equipped it.
func (s *Session) System() *actors.System { return s.system }

// Log returns the child's logger.
func (s *Session) Log() *slog.Logger { return s.log }

// DrainContext returns the context that ends at the deadline of the drain.
func (s *Session) DrainContext() context.Context { return s.drain }

// Context returns the context that ends when the drain begins.
func (s *Session) Context() context.Context { return s.ctx }

// Equipped returns a channel that is closed when the child is equipped, or will never be.
func (s *Session) Equipped() <-chan struct{} { return s.equipped }

// BeginDrain asks the child to drain within d, and to close idle connections within idle. With
// zeros the drain ends at once.
func (s *Session) BeginDrain(d, idle time.Duration) { s.beginDrain(errStopRequested, d, idle) }

// Draining reports whether every http.Server of the worker has begun its drain; false if it serves
// none.
func (s *Session) Draining() bool {
	s.serverMu.Lock()
	defer s.serverMu.Unlock()
	begun := len(s.servers) > 0
	for _, d := range s.servers {
		begun = begun && d.Begun()
	}
	return begun
}
