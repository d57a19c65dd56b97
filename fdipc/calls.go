package fdipc

import (
	"context"
	"fmt"
	"sync"
)

// defaultCalls is the bound of [Calls] that name none.
const defaultCalls = 1 << 20

// Calls are the requests of this process that wait for their replies. Each has a number, which
// goes out with the request and comes back with the reply: as the frame's Target, or in its
// payload. Q is what the caller notes about a request, A is the reply.
//
// [Calls.Do] sends a request and waits for its reply. The Handler ends the call:
//
//	calls.Finish(f.Target, reply, nil)
//
// A caller that does more takes the steps one by one: [Calls.Begin], the send, [Call.Wait].
//
// A call ends once: by Finish, Take, Fail or Cancel, whichever is first. A reply that comes after
// the end, or that nothing was asked for, finds no call. So Calls may be given numbers that a peer
// made up.
//
// The zero value is ready for use. All methods may be called concurrently, also from callbacks of
// a Conn; only Wait and Do wait. Calls are not bound to a Conn: one Calls may serve many.
type Calls[Q, A any] struct {
	// Limit bounds the calls that wait for a reply; at the bound Begin returns ErrFull. It is set
	// before the first call. Zero means 1,048,576.
	Limit int

	mu      sync.Mutex
	last    uint32
	waiting map[uint32]*Call[Q, A]
}

// Call is a request that waits for its reply.
type Call[Q, A any] struct {
	// ID is the number of the request: at least 1, below 2^32. It is unlike that of any other call
	// that waits now. Numbers begin anew after the last one.
	ID uint64

	// About is the caller's note. While the call waits, Calls guards it: see Update. After that it
	// belongs to what ended the call.
	About Q

	calls *Calls[Q, A]
	done  chan struct{} // closed when reply and err are set
	reply A
	err   error
}

// Begin makes a call that waits for its reply. It comes before the request is sent, so that the
// reply finds it. The call is to be ended: by its reply, or by Cancel.
func (cs *Calls[Q, A]) Begin(about Q) (*Call[Q, A], error) {
	c := &Call[Q, A]{About: about, calls: cs, done: make(chan struct{})}
	limit := cs.Limit
	if limit == 0 {
		limit = defaultCalls
	}
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if len(cs.waiting) >= limit {
		return nil, fmt.Errorf("fdipc: call: %w: %d wait for a reply, the limit", ErrFull, limit)
	}
	if cs.waiting == nil {
		cs.waiting = make(map[uint32]*Call[Q, A])
	}
	for {
		cs.last++
		if _, taken := cs.waiting[cs.last]; !taken && cs.last != 0 {
			break
		}
	}
	c.ID = uint64(cs.last)
	cs.waiting[cs.last] = c
	return c, nil
}

// Do sends f over conn, with the number of a new call as its Target, and waits for the reply until
// ctx or conn ends. The errors are those of Begin, [Conn.Send] and [Call.Wait]. It is for a frame
// without handles: after an error it would not be clear whose they are.
func (cs *Calls[Q, A]) Do(ctx context.Context, conn *Conn, f *Frame, about Q) (reply A, err error) {
	c, err := cs.Begin(about)
	if err != nil {
		return reply, err
	}
	f.Target = c.ID
	if err := conn.Send(ctx, f); err != nil {
		c.Cancel()
		return reply, err
	}
	return c.Wait(ctx, conn.Done())
}

// Take takes the call with that number out, for a receiver that has to work on the reply before
// the caller sees it: from now on nothing else ends the call, and the receiver must call
// [Call.Finish], soon. It is nil if no call of that number waits.
func (cs *Calls[Q, A]) Take(id uint64) *Call[Q, A] {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.findLocked(id)
	if c != nil {
		delete(cs.waiting, uint32(id))
	}
	return c
}

// findLocked returns the call with that number, or nil. A number of more than 32 bits is no call's.
func (cs *Calls[Q, A]) findLocked(id uint64) *Call[Q, A] {
	if uint64(uint32(id)) != id {
		return nil
	}
	return cs.waiting[uint32(id)]
}

// Finish ends the call with that number, with a reply or an error. It reports whether the call
// was still waiting; if not, what came with the reply is the receiver's to dispose of.
func (cs *Calls[Q, A]) Finish(id uint64, reply A, err error) bool {
	c := cs.Take(id)
	if c == nil {
		return false
	}
	c.Finish(reply, err)
	return true
}

// Fail ends the calls for which why returns an error, with that error: those to a peer that has
// ended, or all. why is called with the note of each call that waits, under the lock: it must not
// use Calls.
func (cs *Calls[Q, A]) Fail(why func(about *Q) error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for id, c := range cs.waiting {
		if err := why(&c.About); err != nil {
			delete(cs.waiting, id)
			c.err = err
			close(c.done)
		}
	}
}

// Update calls f with the note of the call with that number, under the lock: f must not use Calls.
// It reports whether there is such a call; f may be nil.
func (cs *Calls[Q, A]) Update(id uint64, f func(about *Q)) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.findLocked(id)
	if c != nil && f != nil {
		f(&c.About)
	}
	return c != nil
}

// Last returns the number of the last call, for Restore in the next image of the process. The calls
// that wait end with the image.
func (cs *Calls[Q, A]) Last() uint64 {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return uint64(cs.last)
}

// Restore has the numbers go on after that of the last call of the image before, so that a reply
// which comes late finds no call. It comes before the first Begin.
func (cs *Calls[Q, A]) Restore(last uint64) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.last = uint32(last)
}

// Len returns how many calls wait.
func (cs *Calls[Q, A]) Len() int {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	return len(cs.waiting)
}

// Finish ends a call that Take has taken out. It is called once.
func (c *Call[Q, A]) Finish(reply A, err error) {
	c.reply, c.err = reply, err
	close(c.done)
}

// Cancel gives the call up. It reports whether the call was still waiting: then it has no result,
// and a reply that comes finds no call. If not, Done is closed, or about to be.
func (c *Call[Q, A]) Cancel() bool {
	cs, id := c.calls, uint32(c.ID)
	cs.mu.Lock()
	defer cs.mu.Unlock()
	waits := cs.waiting[id] == c // after its end the number may be another call's
	if waits {
		delete(cs.waiting, id)
	}
	return waits
}

// Done is closed when the call has ended otherwise than by Cancel.
func (c *Call[Q, A]) Done() <-chan struct{} { return c.done }

// Result returns the reply, or the error that ended the call. It is valid once Done is closed.
func (c *Call[Q, A]) Result() (A, error) { return c.reply, c.err }

// Wait waits for the end of the call and returns its result. It gives the call up, and returns
// ctx's error, when ctx ends; or [ErrPeerLost] when over is closed, such as [Conn.Done]. A reply
// that is there by then is preferred.
func (c *Call[Q, A]) Wait(ctx context.Context, over <-chan struct{}) (A, error) {
	var err error
	select {
	case <-c.done:
		return c.Result()
	case <-ctx.Done():
		err = ctx.Err()
	case <-over:
		err = ErrPeerLost
	}
	if c.Cancel() {
		var none A
		return none, err
	}
	<-c.done
	return c.Result()
}
