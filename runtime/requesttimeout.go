package coppice

import (
	"context"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/httpdrain"
	"github.com/coppice-go/coppice/runtime/internal/inflight"
)

// ErrRequestTimeout is the cause of a request's context at its soft deadline (context.Cause), and
// is wrapped by the exit reason of a worker in which a request was over its hard one. It is also a
// context.DeadlineExceeded.
var ErrRequestTimeout = httpdrain.ErrTimeout

// A RequestTimeout is how long each request may take. At the soft deadline its context ends, with
// ErrRequestTimeout as the cause, and the log has its key, age, trace and the stack of its
// goroutine. At the hard one its worker is replaced: others take its place, its other requests
// finish within its drain, its idle connections go on elsewhere as in a reload, and at the end of
// [Pool].Shutdown what is left is killed. That needs nothing of the worker: its handler may spin or
// block in the kernel, and the process may be stopped.
//
// It holds for the servers of [Worker.Serve] that are an *http.Server, in pools of processes, for
// requests that have a key (see [Poison]), 1,024 at a time. A stream of HTTP/2 is a request. A
// handler that takes over its connection (http.Hijacker, as for a WebSocket) ends the deadlines of
// its request; one that streams, or answers a long poll, asks for more time: [ExtendRequest].
// Over HTTP/1 the context of the connection (http.Server.ConnContext) ends with the request's, and
// the next answer on the connection has "Connection: close".
//
// A worker replaced so uses no restart budget. If the request is still under way when it ends, that
// is a crash, with a report, and the exit reason wraps ErrRequestTimeout; for [Poison] the request
// was in flight in a death, and what ran beside it was not.
type RequestTimeout struct {
	Soft time.Duration // since the request's headers were read; zero = none
	Hard time.Duration // since then too, not less than Soft; zero = none
}

func (r RequestTimeout) validate(bad reportInvalid, path string) {
	notNegative(bad, path, "RequestTimeout.Soft", r.Soft)
	notNegative(bad, path, "RequestTimeout.Hard", r.Hard)
	if longest := max(r.Soft, r.Hard); longest >= inflight.Forever {
		bad(path, "RequestTimeout", longest, "is longer than 73 years; zero = no deadline")
	}
	if r.Hard > 0 && r.Hard < r.Soft {
		bad(path, "RequestTimeout.Hard", r.Hard, fmt.Sprintf("is shorter than RequestTimeout.Soft, %v", r.Soft))
	}
}

// ExtendRequest gives the request whose context is ctx, or was derived from it, d from now until
// its soft deadline, in place of what is left of it; d may be shorter too, and [None] ends the
// request's deadlines. The hard deadline stays as far behind. Without a RequestTimeout.Soft d is
// until the hard one. ExtendRequest reports whether it did: not if ctx has ended, as it has after
// the soft deadline, nor if the request has no deadlines. Any goroutine may call it.
func ExtendRequest(ctx context.Context, d time.Duration) bool { return httpdrain.Extend(ctx, d) }
