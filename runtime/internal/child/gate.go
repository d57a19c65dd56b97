package child

import (
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor/dispatch"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/httpdrain"
	"github.com/coppice-go/coppice/runtime/internal/inflight"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
)

// requestGate notes the requests of a worker's servers in a table that outlives the worker, and
// refuses those whose keys killed workers. While no key is suspected it compares a pointer.
type requestGate struct {
	key  func(*http.Request) string // set before the first request; nil = method and path
	tell func(childproto.GuardedKey)

	timeouts childproto.Timeouts
	timed    []atomic.Pointer[httpdrain.Timed] // of requests in flight, by number

	table atomic.Pointer[inflight.Table]
	keys  atomic.Pointer[map[string]*guardedKey] // nil = none
}

type guardedKey struct {
	childproto.GuardedKey
	probed   atomic.Uint64 // the newest probe that was used
	answered atomic.Bool   // the master knows
	refused  atomic.Uint64 // requests of which the master does not know
	toldAt   atomic.Int64  // Unix time in nanoseconds
}

// refusal is the text of a refused request. It does not have the key: that is the client's.
const refusal = "requests like this one have killed the processes that served them, and are refused for a while"

// tellEvery is how often a worker reports refused requests to the master, and so asks for a probe.
const tellEvery = int64(time.Second)

// receive takes a FrameGuard.
func (g *requestGate) receive(f *fdipc.Frame) error {
	if len(f.Handles) == 1 {
		file, err := f.Handles[0].File()
		if errors.Is(err, fdipc.ErrRevoked) {
			return nil // the channel has ended, and so does this worker
		}
		if err != nil {
			return err
		}
		defer file.Close()
		table, err := inflight.Open(file)
		if err != nil {
			return err
		}
		g.table.Store(table)
	}
	return childproto.Handle(f, func(f childproto.GuardFrame) {
		if len(f.Keys) == 0 {
			g.keys.Store(nil)
			return
		}
		keys := make(map[string]*guardedKey, len(f.Keys))
		for _, k := range f.Keys {
			keys[string(k.Key)] = &guardedKey{GuardedKey: k}
		}
		if before := g.keys.Load(); before != nil {
			for name, k := range keys {
				if b := (*before)[name]; b != nil {
					k.probed.Store(b.probed.Load())
					k.refused.Store(b.refused.Load())
				}
			}
		}
		g.keys.Store(&keys)
	})
}

// Begin is for httpdrain.Gate.
func (g *requestGate) Begin(r *http.Request, timed *httpdrain.Timed) (n int, refused string) {
	if timed != nil {
		timed.Begun(inflight.None, 1)
	}
	t := g.table.Load()
	if t == nil {
		return inflight.None, ""
	}
	method, path := r.Method, r.URL.Path
	if g.key != nil {
		if method, path = "", g.key(r); path == "" {
			return inflight.None, ""
		}
	}
	var b [inflight.MaxKey]byte
	key := inflight.AppendKey(b[:0], method, path)
	if keys := g.keys.Load(); keys != nil {
		if k := (*keys)[string(key)]; k != nil && k.Refuse && !k.takeProbe() {
			g.refuse(k)
			return inflight.None, refusal
		}
	}
	var due time.Duration
	if timed != nil {
		due = t.Now() + g.timeouts.First()
	}
	began := time.Now()
	if n = t.Begin(key, traceOf(r), began, due); n != inflight.None && timed != nil {
		timed.Begun(n, began.UnixNano())
		g.timed[n].Store(timed)
	}
	return n, ""
}

// Extend is for httpdrain.Gate.
func (g *requestGate) Extend(n int, id int64, d time.Duration) bool {
	t := g.table.Load()
	if t == nil || n == inflight.None || !t.Is(n, id) { // its number may be another request's by now
		return false
	}
	if d < 0 || d >= inflight.Forever {
		t.SetDue(n, 0)
		return true
	}
	t.SetDue(n, t.Now()+d)
	return true
}

// expire ends the contexts of requests at their soft deadlines, until ctx ends.
func (g *requestGate) expire(ctx context.Context, log *slog.Logger) {
	rule := inflight.NewDeadlines(g.timeouts.First(), 0)
	timer := time.NewTimer(0)
	defer timer.Stop()
	var all []inflight.Request
	var logged time.Time
	unlogged := 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		t := g.table.Load()
		if t == nil { // it is on its way
			timer.Reset(g.timeouts.First() / 2)
			continue
		}
		all = t.InFlight(all[:0])
		over, next := rule.Step(t.Now(), all)
		for _, r := range over {
			timed := g.timed[r.N].Load()
			if timed == nil {
				continue
			}
			served, _ := t.Served(r)
			quiet, stack := time.Since(logged) < time.Second, ""
			if !quiet { // it costs the stacks of all
				stack = stacks.Of(timed.Goroutine())
			}
			switch {
			case !timed.Expire(r.Began):
			case quiet:
				unlogged++
			default:
				logged = time.Now()
				log.Warn("a request is over its soft deadline: its context ends", "key", served.Key, "age", logged.Sub(served.Began).Round(time.Millisecond).String(),
					"trace", served.TraceID(), "unlogged", unlogged, "stack", stack)
				unlogged = 0
			}
		}
		timer.Reset(next - t.Now())
	}
}

// takeProbe reports whether a request may be the probe.
func (k *guardedKey) takeProbe() bool {
	used := k.probed.Load()
	return k.Probe > used && k.probed.CompareAndSwap(used, k.Probe)
}

func (g *requestGate) refuse(k *guardedKey) {
	k.refused.Add(1)
	now, told := time.Now().UnixNano(), k.toldAt.Load()
	if now-told >= tellEvery && k.toldAt.CompareAndSwap(told, now) {
		g.tell(childproto.GuardedKey{Key: k.Key, Refused: k.refused.Swap(0)})
	}
}

// End is for httpdrain.Gate.
func (g *requestGate) End(n int) {
	if n == inflight.None {
		return
	}
	t := g.table.Load()
	if keys := g.keys.Load(); keys != nil {
		if k := (*keys)[string(t.Key(n))]; k != nil && k.answered.CompareAndSwap(false, true) {
			g.tell(childproto.GuardedKey{Key: k.Key, Answered: true})
		}
	}
	if g.timed != nil {
		g.timed[n].Store(nil)
	}
	t.End(n)
}

// settles is how long a connection that its worker has closed counts as in flight: a panic runs the
// functions that its handler has deferred, which close it, before it ends the process.
const settles = 100 * time.Millisecond

// serving notes a connection whose first bytes have a key.
func (g *requestGate) serving(key string) (end func()) {
	t := g.table.Load()
	if t == nil {
		return nil
	}
	n := t.Begin([]byte(key), [16]byte{}, time.Now(), 0)
	if n == inflight.None {
		return nil
	}
	return func() { time.AfterFunc(settles, func() { g.End(n) }) }
}

// guardListeners has the listener process turn connections away.
func (s *Session) guardListeners(f childproto.GuardFrame) {
	keys := make([]dispatch.Guarded, len(f.Keys))
	for i, k := range f.Keys {
		keys[i] = dispatch.Guarded{Key: string(k.Key), Probe: k.Probe, Worker: k.Worker}
	}
	s.dispatcher.Guard(f.Pool, keys)
}

// tellRefused tells the master of connections that were turned away, which asks it for a probe.
func (s *Session) tellRefused(pool, key string, n uint64) {
	s.gate.tell(childproto.GuardedKey{Pool: pool, Key: []byte(key), Refused: n})
}

// traceOf returns the ID of the trace that the client has begun (traceparent of W3C Trace Context),
// or of the connection's.
func traceOf(r *http.Request) (id [16]byte) {
	if h := r.Header["Traceparent"]; len(h) == 1 && len(h[0]) >= 35 {
		var text [32]byte
		copy(text[:], h[0][3:35])
		if _, err := hex.Decode(id[:], text[:]); err == nil {
			return id
		}
	}
	return trace.SpanContextFromContext(r.Context()).TraceID()
}
