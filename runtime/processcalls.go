package coppice

import (
	"context"
	"errors"
	"fmt"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// Restart gives the place of one child to a fresh one, and returns when that is ready. It counts in
// no budget.
//
// name is the registered name of a worker, web/0, or its ID, 12: the worker is replaced without a
// gap, by one of the current generation, as a recycling does it. If the new worker fails, the old
// one works on, and the error says why. The name of the listener process is listener. A slot whose
// worker has ended for good gets one again. The path of a Pool names all its workers, one after the
// other. Any other child is stopped, and then started: there is a gap.
//
// Restart waits for a reload of the pool that is under way, which may replace the worker. The end
// of ctx ends the wait only; of a Pool no further worker is replaced then. If nothing has that name,
// the error wraps [ErrNoChild].
func (rt *Runtime) Restart(ctx context.Context, name string) error {
	return callError("restart", name, rt.restart(ctx, name))
}

func (rt *Runtime) restart(ctx context.Context, name string) error {
	if c, slot, ok := rt.pools.slot(name); ok {
		return c.restartSlot(ctx, slot)
	}
	if w, err := rt.children.named(name); err == nil {
		return w.driver.replace(ctx, w)
	}
	n, at, up, err := rt.childAt(ctx, name)
	if errors.Is(err, supervisor.ErrNotFound) {
		return rt.noProcess(name)
	}
	if err != nil {
		return err
	}
	if _, is := n.spec.(Pool); is {
		c, err := rt.pools.find(name)
		if err != nil {
			return err
		}
		for _, slot := range c.slotNumbers() {
			if err := c.restartSlot(ctx, slot); err != nil && !errors.Is(err, ErrNoChild) { // it may be removed
				return err
			}
		}
		return nil
	}
	return toTheEnd(ctx, func(ctx context.Context) error { // what was stopped is to be started again
		if err := rt.terminate(ctx, n, at, up); err != nil {
			return err
		}
		_, err := up.RestartChild(ctx, n.spec.childName())
		if errors.Is(err, supervisor.ErrNotFound) { // it was temporary
			err = rt.startNode(ctx, at, up, n)
		}
		return err
	})
}

// Stop ends one process as its own SIGTERM does, and returns when it has ended. name is that of a
// worker, as for Restart, or the path of a Process. It drains, or stops, within its Shutdown time.
// A permanent worker is replaced first, as by Restart; with Pool.OTP it is replaced after its end,
// and counts in the budget. A permanent Process is started again, and counts nowhere. Others stay
// down. To have fewer workers see Scale, to stop a whole child TerminateChild.
//
// The end of ctx ends the wait only. If no process has that name, the error wraps [ErrNoChild].
func (rt *Runtime) Stop(ctx context.Context, name string) error {
	w, err := rt.children.named(name)
	if err != nil {
		return callError("stop", name, rt.stopProcess(ctx, name))
	}
	c := w.driver
	if c.replacesStopped() {
		if err := c.replace(ctx, w); err != nil {
			return callError("stop", name, err)
		}
	} else {
		c.stopForGood(w)
	}
	return callError("stop", name, awaitEnd(ctx, w.over))
}

// stopProcess is Stop of a Process.
func (rt *Runtime) stopProcess(ctx context.Context, path string) error {
	n, at, up, err := rt.childAt(ctx, path)
	if err != nil && !errors.Is(err, supervisor.ErrNotFound) {
		return err
	}
	if err != nil || n.process() == nil {
		return rt.noProcess(path)
	}
	if n.spec.(Process).Restart == supervisor.Permanent {
		return rt.restart(ctx, path)
	}
	return toTheEnd(ctx, func(ctx context.Context) error { return rt.terminate(ctx, n, at, up) })
}

// Kill ends one process by SIGKILL, without asking it, and returns when it has ended. name is as
// for Stop. Its exit reason is "killed: by the operator" ([KilledOperator]); what follows is what
// follows each death: its supervisor decides.
//
// The end of ctx ends the wait only. If no process has that name, the error wraps [ErrNoChild].
func (rt *Runtime) Kill(ctx context.Context, name string) error {
	if w, err := rt.children.named(name); err == nil {
		w.killFor(KilledOperator)
		return callError("kill", name, awaitEnd(ctx, w.over))
	}
	if n := rt.root.find(name); n != nil {
		if p := n.process(); p != nil {
			p.killFor(KilledOperator)
			return callError("kill", name, awaitEnd(ctx, p.Done()))
		}
	}
	return callError("kill", name, rt.noProcess(name))
}

// KillWorker kills the worker with an ID by SIGKILL, for a reason that its Exit then has, and does
// not wait for its end. Unlike a name, an ID is that of one process for ever. If no worker has it,
// or has it any more, the error wraps [ErrNoChild].
func (rt *Runtime) KillWorker(id int, why KillReason) error {
	w := rt.children.child(id)
	if w == nil || !w.driver.kind.ofConfig {
		return fmt.Errorf("coppice: kill worker %d: %w", id, ErrNoChild)
	}
	w.killFor(why)
	return nil
}

// noProcess returns the ErrNoChild for a name that is no process's, and says what has the name.
func (rt *Runtime) noProcess(name string) error {
	text := "no process of that name"
	if n := rt.root.find(name); n != nil {
		text += "; its role in the tree is " + string(roleOf(n.spec))
		if _, is := n.spec.(Pool); is {
			text += ", and its workers are " + name + "/0 and so on"
		}
	} else if name == childproto.MasterName {
		text = "the master is left out: reload replaces the other processes, and a signal to it ends the tree"
	}
	return &textError{text, ErrNoChild}
}

// killable is a running program.
type killable interface {
	supervisor.Instance
	killFor(KillReason)
}

// process returns the running program of n; nil if there is none.
func (n *node) process() killable {
	p, _ := n.running().(killable)
	if p == nil {
		return nil
	}
	select {
	case <-p.Done():
		return nil
	default:
		return p
	}
}

// toTheEnd runs f, and waits for it until ctx ends. f goes on then: its context does not end.
func toTheEnd(ctx context.Context, f func(context.Context) error) error {
	done := make(chan error, 1)
	go func() { done <- f(context.WithoutCancel(ctx)) }() // ends with f, which waits for supervisors
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func awaitEnd(ctx context.Context, ended <-chan struct{}) error {
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// restartSlot gives a slot a fresh worker. If its worker has just ended, that is the one by which
// its supervisor replaces it.
func (c *poolDriver) restartSlot(ctx context.Context, slot int) error {
	c.mu.Lock()
	s := c.slotLocked(slot)
	w := s.worker
	c.mu.Unlock()
	if w != nil {
		if !w.finished() {
			return c.replace(ctx, w)
		}
		if err := awaitEnd(ctx, w.over); err != nil {
			return err
		}
		if err := c.Turn(ctx); err != nil { // the supervisor has been told of the end
			return err
		}
	}
	replaced := make(chan error, 1)
	c.mu.Lock()
	if s.worker != w {
		c.mu.Unlock()
		return nil
	}
	s.pendingReplacements = append(s.pendingReplacements, replaced)
	c.mu.Unlock()
	select {
	case <-c.supervisorSet:
	case <-c.gone:
		return ErrStopping
	case <-ctx.Done():
		return ctx.Err()
	}
	_, err := c.sup.RestartChild(ctx, c.slotID(slot))
	switch {
	case errors.Is(err, supervisor.ErrNotFound):
		return ErrNoChild
	case errors.Is(err, supervisor.ErrRunning), errors.Is(err, supervisor.ErrRestarting):
		return c.awaitReplacement(ctx, replaced)
	}
	return err
}

// replace replaces a slot's worker without a gap, and waits for its successor. A spare is only
// asked to end.
func (c *poolDriver) replace(ctx context.Context, w *poolWorker) error {
	replaced := make(chan error, 1)
	c.mu.Lock()
	switch s := c.slots[w.slot]; {
	case w.slot < 0:
		replaced <- nil
	case s.occupant() != w || w.finished():
		c.mu.Unlock()
		return fmt.Errorf("%w: it has no slot", ErrNoChild)
	case w.drainWhy == pool.ForScale: // it has left the slot, which is being removed
		c.mu.Unlock()
		return errSlotRemoved
	default:
		s.pendingReplacements = append(s.pendingReplacements, replaced)
	}
	c.mu.Unlock()
	c.markDue(w, byOperator)
	return c.awaitReplacement(ctx, replaced)
}

func (c *poolDriver) awaitReplacement(ctx context.Context, replaced <-chan error) error {
	select {
	case err := <-replaced:
		return err
	case <-c.gone:
		return ErrStopping
	case <-ctx.Done():
		return ctx.Err()
	}
}
