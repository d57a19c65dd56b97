package fdipc

import (
	"context"
	"fmt"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// A Conn is suspended in four steps: its readers stop between two packets, the handles that they
// have delivered are claimed or refused, its lanes stop between two packets, and its offers stay as
// they are. Then nothing of it changes but what the peer does in the sockets and the claim tables,
// and the state is what encode finds.

// pauses is what suspends a Conn. It is guarded by Conn.mu.
type pauses struct {
	gate      chan struct{} // closed by resume; nil: the Conn is neither suspended nor about to be
	reading   int           // readers that work
	suspended bool          // fail only notes why
	end       error         // what fail has noted
	fresh     bool          // made by Restore; the goroutines do not run yet
}

// Suspend stops the Conn between two packets and returns its state: what the process has to keep
// when it replaces its image by exec(3), so that the peer does not notice. The next image passes
// both to [Restore]; if there is none after all, [Conn.Resume] lets the Conn go on. It needs
// [Config.Suspendable], and no doing of the peer, which may be stopped itself.
//
// fds are the Conn's descriptors: its sockets, its claim tables, and the handles that are on offer
// or that have come with a frame of which a part is still to come. They stay the Conn's. They are
// close-on-exec, which is to be undone right before the exec, and keep their numbers.
//
// What the kernel has not handed out stays in the kernel, a frame that is queued or half sent is in
// the state, and so is one that has come in part: state has at most QueueBytes and MaxFrame for
// each lane, and MaxFrame again for what has come, and is made by one copy of that.
//
// Suspend waits until each Handler and Resolved under way has returned, and until each handle that
// was delivered is claimed or refused. If ctx ends first the Conn goes on, and the error is ctx's
// and says what was waited for. A Conn that has ended, or is about to because it was closed or its
// peer has gone, is not suspended: the frames that came are handled, and the error is how it has
// ended.
//
// While the Conn is suspended, Send waits and TrySend returns [ErrSuspended]; its callbacks do not
// run; and what would end it, Close included, ends it when it is resumed. Suspend may be called
// again then, with the same result. It must not be called from a callback.
func (c *Conn) Suspend(ctx context.Context) (state []byte, fds []int, err error) {
	if !c.cfg.Suspendable || c.memory {
		return nil, nil, fmt.Errorf("fdipc: suspend: %w: within a process, or without Config.Suspendable", ErrUnsupported)
	}
	if err := c.suspend(ctx); err != nil {
		return nil, nil, fmt.Errorf("fdipc: suspend: %w", err)
	}
	s, fds := c.state()
	state, err = cbor.Marshal(s)
	return state, fds, err
}

// readerEnded is called by a reader that works no more.
func (c *Conn) readerEnded() {
	c.mu.Lock()
	c.pauses.reading--
	c.mu.Unlock()
}

// readerIdle is called by a reader. It runs wait, which must use nothing of the Conn's state, and
// returns when the Conn is not suspended, or has ended.
func (c *Conn) readerIdle(wait func()) {
	c.readerEnded()
	wait()
	c.mu.Lock()
	for c.pauses.gate != nil && c.err == nil {
		gate := c.pauses.gate
		c.mu.Unlock()
		select {
		case <-gate:
		case <-c.ending:
		}
		c.mu.Lock()
	}
	c.pauses.reading++
	c.mu.Unlock()
}

// suspend does all of Suspend but take the state. On an error the Conn has gone on.
func (c *Conn) suspend(ctx context.Context) (err error) {
	o, p := &c.offers, &c.pauses
	c.mu.Lock()
	if c.err != nil || p.gate != nil {
		defer c.mu.Unlock()
		if c.err == nil && !p.suspended {
			return fmt.Errorf("%w: by another caller, just now", ErrSuspended)
		}
		return c.err
	}
	p.gate = make(chan struct{})
	endpoints := c.endpoints
	c.mu.Unlock()
	for _, e := range endpoints {
		e.pause(true, false)
	}
	locked, over := false, false
	defer func() {
		if err == nil {
			return
		}
		c.resume(locked)
		if over { // the Conn is about to end: it handles what there is
			select {
			case <-c.done:
				err = c.Err()
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
	}()
	for _, w := range []struct {
		what string
		done func() bool
	}{
		{"a Handler", c.readersStopped},
		{"a claim of a handle that was delivered", func() bool { return c.held.Load() <= c.heldInParts() }},
		{"Resolved", o.callback.TryLock},
	} {
		for pause := time.Microsecond; !w.done(); pause = min(2*pause, time.Millisecond) {
			select {
			case <-c.ending:
				return c.Err()
			case <-ctx.Done():
				return fmt.Errorf("waits for %s: %w", w.what, ctx.Err())
			case <-time.After(pause):
			}
		}
	}
	locked = true
	o.pollLocked() // while Resolved may still send
	for _, l := range c.lanes {
		if over, err = l.suspend(ctx); err != nil {
			return err
		}
	}
	for stopped := false; !stopped; {
		o.pollLocked()
		o.mu.Lock()
		stopped = len(o.resolved) == 0
		o.paused = stopped
		o.mu.Unlock()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	p.suspended = c.err == nil
	return c.err
}

func (c *Conn) readersStopped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pauses.reading == 0
}

// heldInParts returns how many of the handles held came with frames that have not come whole.
func (c *Conn) heldInParts() (n int64) {
	for i, r := range c.receivers {
		n += int64(len(r.parts[i].handles))
	}
	return n
}

// suspend stops the lane between two packets. over: it has ended or was closed, and so will the
// Conn.
func (l *lane) suspend(ctx context.Context) (over bool, err error) {
	l.mu.Lock()
	if l.err != nil || l.refusal != nil {
		l.mu.Unlock()
		return true, ErrClosed
	}
	l.suspended, l.refusal = true, ErrSuspended
	l.sending = true // by nothing, until resume
	l.mu.Unlock()
	l.endpoint.pause(true, true)
	l.mu.Lock()
	for l.active {
		if err := l.waitRoom(ctx); err != nil {
			return false, err
		}
		l.mu.Lock()
	}
	defer l.mu.Unlock()
	return l.err != nil, l.err
}

// Resume lets a Conn that Suspend has stopped, or [Restore] has made, go on. For another it does
// nothing.
func (c *Conn) Resume() {
	c.mu.Lock()
	suspended, fresh, ready := c.pauses.suspended, c.pauses.fresh, c.ready
	c.mu.Unlock()
	if !suspended {
		return
	}
	if fresh {
		c.releaseAll()
	}
	c.resume(true)
	if fresh {
		c.run(Control, c.readControl)
		if ready { // else the handshake does it
			c.run(Data, c.readData)
		}
	}
}

// resume undoes what stopReaders and suspend have done; locked: suspend has come as far as the
// offers.
func (c *Conn) resume(locked bool) {
	c.mu.Lock()
	p := &c.pauses
	endpoints, ready := c.endpoints, c.ready
	c.mu.Unlock()
	for _, e := range endpoints {
		e.pause(false, false)
	}
	if locked {
		o := &c.offers
		o.mu.Lock()
		o.paused = false
		if len(o.live) > 0 {
			o.armLocked(c.cfg.tick)
		}
		o.mu.Unlock()
		o.callback.Unlock()
	}
	for _, l := range c.lanes {
		l.mu.Lock()
		if l.suspended {
			if l.suspended, l.refusal = false, nil; l.closed {
				l.refusal = ErrClosed
			}
			l.wakeSendersLocked()
			if ready { // else the handshake does it
				l.wakeWriter()
			}
		}
		l.mu.Unlock()
	}
	c.mu.Lock()
	end := p.end
	close(p.gate)
	p.gate, p.suspended, p.fresh, p.end = nil, false, false, nil
	c.mu.Unlock()
	if end != nil {
		c.fail(end)
	}
}
