package coppice

import (
	"context"
	"sync"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// slotInstance is a slot of a pool as its supervisor sees it: an instance that runs as long as
// somebody sits in it. Who that is may change while it runs.
type slotInstance struct {
	supervisor.Base
	driver *poolDriver
	slot   int
	done   chan struct{}

	mu     sync.Mutex // for moments
	child  *childHandle
	reason supervisor.Reason
	leaked <-chan struct{}
}

func newSlotInstance(c *poolDriver, slot int, p *childHandle) *slotInstance {
	return &slotInstance{driver: c, slot: slot, child: p, done: make(chan struct{})}
}

// slotStarter starts a slot.
type slotStarter struct {
	driver *poolDriver
	slot   int
}

func (s slotStarter) Start(ctx context.Context, _ supervisor.Incarnation) (supervisor.Instance, error) {
	return s.driver.start(ctx, s.slot)
}

// setChild puts another worker in.
func (s *slotInstance) setChild(p *childHandle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.child = p
}

func (s *slotInstance) current() *childHandle {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.child
}

func (s *slotInstance) has(p *childHandle) bool { return s.current() == p }

// end ends the instance.
func (s *slotInstance) end(r supervisor.Reason, leaked <-chan struct{}) {
	s.mu.Lock()
	s.reason, s.leaked = r, leaked
	s.mu.Unlock()
	close(s.done)
}

func (s *slotInstance) Done() <-chan struct{} { return s.done }
func (s *slotInstance) Stop()                 { s.driver.step(pool.Event{Kind: pool.StopSlot, Slot: s.slot}) }
func (s *slotInstance) Kill()                 { s.driver.step(pool.Event{Kind: pool.KillSlot, Slot: s.slot}) }

func (s *slotInstance) Reason() supervisor.Reason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reason
}

func (s *slotInstance) Leaked() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.leaked
}

func (s *slotInstance) Info() any { return s.current().info() }
