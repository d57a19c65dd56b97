package coppice

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// errSlotRemoved answers callers that wait for another worker in a slot that the pool no longer
// has.
var errSlotRemoved = fmt.Errorf("%w: its slot is removed", ErrNoChild)

// poolSlot is a driver's record of one slot, from its first start on; guarded by poolDriver.mu. Its
// workers change.
type poolSlot struct {
	number        int
	worker        *poolWorker // its present or last worker; nil before the first
	since         time.Time   // when that became its worker
	instance      *slotInstance
	incarnations  int // number of workers that it has had
	pendingStarts []chan<- startResult
	signalledAt   time.Time // when a signal asked its worker to end

	pendingReplacements []chan<- error // of callers that wait for another worker
}

// occupy makes w the slot's worker.
func (s *poolSlot) occupy(w *poolWorker) {
	s.worker, s.since = w, time.Now()
	s.answerReplacements(nil)
}

// answerReplacements answers the callers that wait for another worker.
func (s *poolSlot) answerReplacements(err error) {
	for _, ch := range s.pendingReplacements {
		ch <- err // capacity 1, and this is the only value
	}
	s.pendingReplacements = nil
}

// occupant returns the slot's present or last worker; nil if it has had none.
func (s *poolSlot) occupant() *poolWorker {
	if s == nil {
		return nil
	}
	return s.worker
}

// slotLocked returns a slot, and makes it if there is none of that number.
func (c *poolDriver) slotLocked(n int) *poolSlot {
	s := c.slots[n]
	if s == nil {
		s = &poolSlot{number: n}
		c.slots[n] = s
	}
	return s
}

// slotInstance is a slot as its supervisor sees it: an instance that runs as long as the slot has a
// worker. The worker may change during that time.
type slotInstance struct {
	supervisor.Termination
	driver *poolDriver
	slot   int
}

func (s *slotInstance) Stop() { s.driver.step(pool.Event{Kind: pool.StopSlot, Slot: s.slot}) }
func (s *slotInstance) Kill() { s.driver.step(pool.Event{Kind: pool.KillSlot, Slot: s.slot}) }

func (s *slotInstance) Info() any {
	s.driver.mu.Lock()
	w := s.driver.slotLocked(s.slot).worker
	s.driver.mu.Unlock()
	return w.info()
}

// slotStarter starts a slot.
type slotStarter struct {
	driver *poolDriver
	slot   int

	// Of the pool's first slots, which may start at once: before is closed when the worker of the
	// slot before is launched, and launched is to be called likewise, so that a higher slot has a
	// younger worker. Otherwise nil.
	before   <-chan struct{}
	launched func()
}

// startResult answers the supervisor's start of a slot.
type startResult struct {
	instance *slotInstance
	err      error
}

// Start returns when the slot has its worker. If the worker is a misfit, it starts another, after a
// pause, unless a caller waits for the outcome: that of the first start of the tree, or of Scale.
func (s slotStarter) Start(ctx context.Context, inc supervisor.Incarnation) (i supervisor.Instance, err error) {
	c := s.driver
	if err := c.children.inherited.idle(c.name(s.slot)); err != nil {
		s.begun(func() {})
		return nil, err
	}
	awaited := inc.N == 1 && (!c.up() || childproto.IsClosed(c.supervisorSet))
	if c.pool.OTP || awaited {
		return s.start(ctx)
	}
	err = c.misfits.retry(ctx, c.name(s.slot), func() error {
		if i, err = s.start(ctx); isMisfit(err) {
			c.setMisfit()
		}
		return err
	})
	return i, err
}

// start makes one try of Start.
func (s slotStarter) start(ctx context.Context) (supervisor.Instance, error) {
	c := s.driver
	reply := make(chan startResult, 1)
	s.begun(func() {
		c.mu.Lock()
		slot := c.slotLocked(s.slot)
		slot.pendingStarts = append(slot.pendingStarts, reply)
		c.stepLocked(pool.Event{Kind: pool.Start, Slot: s.slot})
	})
	var r startResult
	select {
	case r = <-reply:
	case <-ctx.Done():
		c.step(pool.Event{Kind: pool.Cancel, Slot: s.slot})
		r = <-reply // the rules answer every start
	}
	if r.instance != nil {
		return r.instance, nil // perhaps too late; the supervisor handles that
	}
	if ctx.Err() != nil && !errors.Is(r.err, context.Cause(ctx)) {
		cause := context.Cause(ctx)
		return nil, &startFailure{name: c.name(s.slot), what: fmt.Sprintf("it was not ready: %v", cause), is: []error{ErrNotReady, cause, r.err}}
	}
	return nil, r.err
}

// begun calls f when it is the slot's turn among those that may start at once.
func (s slotStarter) begun(f func()) {
	if s.before != nil {
		<-s.before // soon: its start was called before this one
	}
	f()
	if s.launched != nil {
		s.launched()
	}
}

// answer answers the waiting starts of a slot.
func (c *poolDriver) answer(slot int, r startResult) {
	c.mu.Lock()
	s := c.slotLocked(slot)
	waiting := s.pendingStarts
	s.pendingStarts = nil
	c.mu.Unlock()
	for _, ch := range waiting {
		ch <- r // capacity 1, and this is the only value
	}
}

// startFailure returns why a worker did not become ready.
func (c *poolDriver) startFailure(id pool.WorkerSeq) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w := c.workers[id]; w != nil && w.err != nil {
		return w.err
	}
	return errors.New("coppice: the start was cancelled")
}

// slotSpec returns the spec of a slot as a child of the pool's supervisor.
func (c *poolDriver) slotSpec(slot int) supervisor.ChildSpec {
	return supervisor.ChildSpec{
		ID: c.slotID(slot), Start: slotStarter{driver: c, slot: slot},
		Restart: c.pool.Restart, Shutdown: c.pool.Shutdown, // the driver enforces StartTimeout
	}
}

// add makes the supervisor start a new slot.
func (c *poolDriver) add(slot int) {
	_, err := c.sup.StartChild(c.alive, c.slotSpec(slot))
	if err != nil {
		c.mu.Lock()
		c.scaleErr = err
		c.mu.Unlock()
	}
	c.step(pool.Event{Kind: pool.Added, Slot: slot, Failed: err != nil})
}

// remove makes the supervisor stop and delete a slot. Its worker has left the slot by then.
func (c *poolDriver) remove(slot int) {
	id := c.slotID(slot)
	for {
		err := c.sup.TerminateChild(c.alive, id)
		if err == nil {
			err = c.sup.DeleteChild(c.alive, id)
		}
		// A restart of its group may have come between the two.
		if !errors.Is(err, supervisor.ErrRunning) && !errors.Is(err, supervisor.ErrRestarting) {
			break
		}
	}
	c.mu.Lock()
	c.slotLocked(slot).answerReplacements(errSlotRemoved)
	c.mu.Unlock()
	c.step(pool.Event{Kind: pool.Removed, Slot: slot})
}

// stopSignalDelay is how long the master waits after a signal asked a child to end. A signal to all
// processes reaches the master too within that time, and the child ends with the tree.
const stopSignalDelay = 250 * time.Millisecond

// onStopSignal is called once, when a signal from outside has asked w to end.
func (c *poolDriver) onStopSignal(w *poolWorker, signal string) {
	w.unlessEnded(stopSignalDelay, func() {
		if c.ending() || w.askedStop.Load() {
			return
		}
		c.log.Info("a signal from outside tells a child to end", "name", w.name(), "id", w.hello.ID, "signal", signal)
		c.mu.Lock()
		w.stopSignalled = true
		early := !w.hadSlot && w.slot >= 0 // occupySlot handles it
		c.mu.Unlock()
		if !early {
			c.stopForSignal(w)
		}
	})
}

// stopForSignal ends a worker that an operator's signal asked to end. The worker is replaced like
// one that is due for recycling, which is no failure. A worker that is not Permanent drains and is
// not replaced. If the slot's previous worker was asked to end by a signal within the pool's
// period, the sender may be the worker itself and not an operator: then the worker ends, and its
// restart counts, as it always does by OTP's rules.
func (c *poolDriver) stopForSignal(w *poolWorker) {
	if c.replacesStopped() && !c.signalledAgain(w) {
		c.markDue(w, "signal")
		return
	}
	c.stopForGood(w)
}

// replacesStopped reports whether a worker that is asked to end from outside is replaced as one
// that is due for recycling.
func (c *poolDriver) replacesStopped() bool {
	return c.pool.Restart == supervisor.Permanent && !c.pool.OTP
}

// stopForGood asks a worker to end, and kills it when its time is over.
func (c *poolDriver) stopForGood(w *poolWorker) {
	w.Stop()
	w.unlessEnded(c.pool.Shutdown, w.Kill)
}

// signalledAgain reports whether a signal asked a worker of w's slot to end less than the pool's
// period ago.
func (c *poolDriver) signalledAgain(w *poolWorker) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	slot, now := c.slotLocked(w.slot), time.Now()
	last := slot.signalledAt
	slot.signalledAt = now
	return now.Sub(last) < c.pool.Intensity.Period
}
