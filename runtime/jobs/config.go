package jobs

import (
	"cmp"
	"context"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/internal/quarantine"
)

// Config describes a pool of jobs. The zero value of each field but Name means its default.
type Config struct {
	// Pool has the name, the size, and what its processes are started with: limits, a user, spares.
	// Worker and Function are set by this package. Prepare is for what a worker does before its
	// first call. The workers are at Name/workers: Runtime.Scale(ctx, "resize/workers", 8).
	coppice.Pool

	// PerWorker is how many calls a worker runs at once, 1 to 4096; zero = 1.
	PerWorker int

	// Queue is how many calls may wait for a worker; zero = 1,024. One that is to run again is
	// never refused.
	Queue int

	// Block makes callers wait for room in the queue, tenants in turn. Otherwise a call that finds
	// it full ends with a [FullError], or has another end with it: the latest of the tenant with
	// the most calls there, if the call's own has fewer.
	Block bool

	// MaxBytes bounds an input and an answer, encoded; zero = 64 MiB. Beyond it is a
	// [TooLargeError].
	MaxBytes int

	// QueueBytes is how long the inputs of the calls that wait and run may be together, in bytes,
	// for more than one call; zero = 1 GiB. Beyond it is a [FullError], also with Block.
	QueueBytes int

	// Fresh gives each call a process of its own: a worker ends after one call, and is replaced, by
	// a spare where one is ready (Pool.Spares). That is no restart: Intensity is for workers that
	// die, or cannot start. It sets Restart and Recycle.Requests, and conflicts with PerWorker.
	// Without it a worker is replaced after Recycle.Requests calls.
	Fresh bool

	// Scratch gives each call an empty directory, see the function [Scratch]. It is removed when
	// the call has ended, by the master if its worker has died.
	Scratch bool

	// Defaults stand for the zero fields of the Options of a call.
	Defaults Options

	// Poison is about keys whose calls kill workers.
	Poison Poison
}

// Poison sets when a key is quarantined: its calls then end with a [QuarantinedError], but for a
// probe now and then, which runs alone in a worker and ends the quarantine if it is answered.
type Poison struct {
	Off    bool
	Deaths int           // in which the key was in flight; zero = 2
	Window time.Duration // how long a death counts; zero = 10 min
	Probe  time.Duration // to the first probe; it doubles with each that dies; zero = 30 s
	Expiry time.Duration // after its last death a key is forgotten; zero = 1 h
	Keys   int           // that are kept at most; zero = 1,024
}

func (p Poison) rules() *quarantine.Config {
	if p.Off {
		return nil
	}
	return &quarantine.Config{Deaths: p.Deaths, Window: p.Window, Interval: p.Probe, Expiry: p.Expiry, Keys: p.Keys}
}

// Options say how a call is to run. Zero fields have the value of [Config].Defaults.
type Options struct {
	// Key is what the call is about, for the quarantine: the hash of an image, a URL, the name of a
	// script. Calls without a key are never quarantined.
	Key string `cbor:",omitempty"`

	// Tenant is whose turn the call takes in the queue.
	Tenant string `cbor:",omitempty"`

	// Timeout is how long a run may take: then its context ends. Zero = no limit. It does not count
	// the time in the queue; the context of the caller does.
	Timeout time.Duration `cbor:",omitempty"`

	// Grace is how long a run may go on after its context has ended, because its time was over or
	// the caller's context ended: then its worker is killed. Zero = 1 s; coppice.None = at once. A
	// function that does not look at its context, as in C, runs for Timeout and Grace.
	Grace time.Duration `cbor:",omitempty"`

	// Idempotent lets the call run again, after a pause and in another worker, when its worker has
	// died: at most Retries times (zero = 2), and at most for one call in ten of the pool.
	Idempotent bool `cbor:",omitempty"`
	Retries    int  `cbor:",omitempty"`

	// Progress gets what the function reports: [OnProgress].
	Progress ProgressFunc `cbor:"-"`
}

// with returns o with the fields of d where it has none.
func (o Options) with(d Options) Options {
	o.Key, o.Tenant = cmp.Or(o.Key, d.Key), cmp.Or(o.Tenant, d.Tenant)
	o.Timeout, o.Grace = cmp.Or(o.Timeout, d.Timeout), cmp.Or(o.Grace, d.Grace, time.Second)
	o.Idempotent, o.Retries = o.Idempotent || d.Idempotent, cmp.Or(o.Retries, d.Retries, 2)
	return o
}

// A Caller calls: a [coppice.Runtime] in the master, a [coppice.Worker] in any worker.
type Caller interface {
	System() *actors.System
	Lookup(name string) *actor.PID
}

// A Function is one that a pool serves; see [Handle].
type Function struct {
	name string
	run  func(ctx context.Context, in *body) (body, error)
}

// Handle returns a Function: fn by a name, which has no slash. Each call runs fn on a goroutine of
// its own, in a worker of the pool. ctx ends when the time of the call is over, with the cause
// context.DeadlineExceeded (context.Cause), when its caller's context has ended, and when the
// worker has to end. A panic of fn is the caller's [PanicError], and the worker goes on. The
// handles of in are fn's to close; a [View] is fn's until it returns.
func Handle[In, Out any](name string, fn func(ctx context.Context, in In) (Out, error)) Function {
	return Function{name, func(ctx context.Context, b *body) (body, error) {
		in, err := decodeInput[In](b)
		if err != nil {
			return body{}, &RefusedError{err.Error()}
		}
		out, err := fn(ctx, in)
		if err != nil {
			return body{}, err
		}
		answer, err := encode(out)
		if err != nil {
			return body{}, &RefusedError{"the answer: " + err.Error()}
		}
		return answer, nil
	}}
}
