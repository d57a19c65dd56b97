package httpdrain

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"runtime"
	"strconv"
	"sync/atomic"
	"time"
)

// ErrTimeout is the cause of the end of a request's context at its soft deadline.
var ErrTimeout error = timeoutError{}

type timeoutError struct{}

func (timeoutError) Error() string        { return "coppice: a request is over its deadline" }
func (timeoutError) Is(target error) bool { return target == context.DeadlineExceeded }

// A Timed can end the context of a request before its handler returns. That of HTTP/1 is the
// connection's, which ends the context of the request under way, so that a request costs no
// allocation; when that has happened, each further request of the connection has a context of its
// own, as each of HTTP/2 has.
type Timed struct {
	gate      Gate
	end       atomic.Pointer[context.CancelCauseFunc]
	goroutine int64        // that serves the request, or all of the connection; set before the first Begun
	n         atomic.Int64 // of the newest request, by the gate
	current   atomic.Int64 // the identity of the request under way; 0 = none
	own       bool         // the context is that of one request; used by its goroutine
	last      *response    // of a connection whose context has ended
	hijacked  atomic.Bool
}

// expired is the identity of a request whose context was ended.
const expired = -1

// timedKey is the context key under which a request finds its Timed.
type timedKey struct{}

// Time gives requests a Timed. The server must not serve yet.
func (d *Drain) Time() { d.timed = map[net.Conn]*Timed{} }

// timeConn returns the context of a connection.
func (d *Drain) timeConn(ctx context.Context, c net.Conn) context.Context {
	ctx, t := d.newTimed(ctx)
	d.mu.Lock()
	d.timed[c] = t
	d.mu.Unlock()
	return ctx
}

func (d *Drain) newTimed(ctx context.Context) (context.Context, *Timed) {
	t := &Timed{gate: d.gate}
	ctx = t.renew(ctx)
	return context.WithValue(ctx, timedKey{}, t), t
}

// renew returns a context that t ends.
func (t *Timed) renew(ctx context.Context) context.Context {
	ctx, end := context.WithCancelCause(ctx)
	t.end.Store(&end)
	return ctx
}

// noteTimed handles the end of a connection, or that a handler has taken it over, which ends the
// deadline of the request.
func (d *Drain) noteTimed(c net.Conn, st http.ConnState) {
	if d.timed == nil || st != http.StateClosed && st != http.StateHijacked {
		return
	}
	d.mu.Lock()
	t := d.timed[c]
	delete(d.timed, c)
	d.mu.Unlock()
	switch {
	case t == nil:
	case st == http.StateHijacked: // done ends it
		t.hijacked.Store(true)
		t.gate.Extend(int(t.n.Load()), t.current.Load(), -1)
	default:
		(*t.end.Load())(context.Canceled)
	}
}

// timedOf returns the Timed of a request, and the request with its context.
func (d *Drain) timedOf(rw http.ResponseWriter, r *http.Request) (*Timed, http.ResponseWriter, *http.Request) {
	t, ok := r.Context().Value(timedKey{}).(*Timed)
	switch {
	case !ok || r.ProtoMajor >= 2:
		ctx, t := d.newTimed(r.Context())
		t.own, t.goroutine = true, thisGoroutine()
		return t, rw, r.WithContext(ctx)
	case t.own: // the context of the connection has ended
		ctx := t.renew(context.WithoutCancel(r.Context()))
		if c, ok := rw.(flusher); ok {
			gone := c.CloseNotify()
			end := *t.end.Load()
			go func() { // ends with the request
				select {
				case <-gone:
					end(context.Canceled)
				case <-ctx.Done():
				}
			}()
		}
		rw, t.last = closing(rw)
		return t, rw, r.WithContext(ctx)
	case t.goroutine == 0:
		t.goroutine = thisGoroutine()
	}
	return t, rw, r
}

// thisGoroutine returns the number of the calling goroutine, as stacks show it; 0 = not known.
func thisGoroutine() int64 {
	var b [64]byte
	text, _, _ := bytes.Cut(bytes.TrimPrefix(b[:runtime.Stack(b[:], false)], []byte("goroutine ")), []byte(" "))
	n, _ := strconv.ParseInt(string(text), 10, 64)
	return n
}

// Goroutine returns the number of the goroutine that serves the request, as stacks show it.
func (t *Timed) Goroutine() int64 { return t.goroutine }

// Begun is for Gate.Begin: the gate has noted a request as n, and id is its identity, which is not
// 0.
func (t *Timed) Begun(n int, id int64) {
	t.n.Store(int64(n))
	t.current.Store(id)
}

// Expire ends the context of the request with an identity, and reports whether that was under way,
// and its context not ended before.
func (t *Timed) Expire(id int64) bool {
	end := *t.end.Load()
	if !t.current.CompareAndSwap(id, expired) {
		return false
	}
	end(ErrTimeout)
	return true
}

// done notes that the handler has returned.
func (t *Timed) done() {
	if t.last != nil {
		t.last.mark() // for a handler that has written nothing
	}
	if t.current.Swap(0) == expired {
		t.own = true
	}
	if t.own || t.hijacked.Load() {
		(*t.end.Load())(context.Canceled)
	}
}

// Extend gives the request whose context is ctx, or was derived from it, d until its first
// deadline, in place of what is left; a negative d ends its deadlines. It reports whether it did.
// Over HTTP/1 a context that outlives its request is one of the next request of the connection.
func Extend(ctx context.Context, d time.Duration) bool {
	t, ok := ctx.Value(timedKey{}).(*Timed)
	if !ok || ctx.Err() != nil {
		return false
	}
	id := t.current.Load()
	return id > 0 && t.gate.Extend(int(t.n.Load()), id, d)
}
