package coppice

import (
	"context"
	"sync"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// seat is a slot of a pool as its supervisor sees it: an instance that runs as long as
// somebody sits in it. Who that is may change while it runs.
type seat struct {
	crew *crew
	slot int
	done chan struct{}

	mu     sync.Mutex // for moments
	peer   *peer
	reason supervisor.Reason
	leaked <-chan struct{}
}

func newSeat(c *crew, slot int, p *peer) *seat {
	return &seat{crew: c, slot: slot, peer: p, done: make(chan struct{})}
}

// seatStarter starts a slot.
type seatStarter struct {
	crew *crew
	slot int
}

func (s seatStarter) Start(ctx context.Context, _ supervisor.Incarnation) (supervisor.Instance, error) {
	return s.crew.start(ctx, s.slot)
}

// take puts another worker in.
func (s *seat) take(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.peer = p
}

func (s *seat) current() *peer {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.peer
}

func (s *seat) has(p *peer) bool { return s.current() == p }

// close ends the instance.
func (s *seat) close(r supervisor.Reason, leaked <-chan struct{}) {
	s.mu.Lock()
	s.reason, s.leaked = r, leaked
	s.mu.Unlock()
	close(s.done)
}

func (s *seat) Done() <-chan struct{} { return s.done }
func (s *seat) Stop()                 { s.crew.step(pool.Event{Kind: pool.StopSlot, Slot: s.slot}) }
func (s *seat) Kill()                 { s.crew.step(pool.Event{Kind: pool.KillSlot, Slot: s.slot}) }

func (s *seat) Reason() supervisor.Reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

// Leaked is looked for by package supervisor, and asked after Done.
func (s *seat) Leaked() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaked
}

// Info is looked for by package supervisor.
func (s *seat) Info() any { return s.current().info() }
