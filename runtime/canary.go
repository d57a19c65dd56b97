package coppice

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/canary"
)

// A Canary makes a reload of a pool try the new generation in some slots, beside the old one, and
// judge it by what both serve. [Runtime.Reload] goes forward if nothing is worse, and back, with an
// error that wraps [ErrWorse], if something is; [Runtime.EndCanary] decides before.
//
// Worker.Serve counts the requests of an *http.Server, those answered with 5xx, and how long
// handlers took; [Worker.Report] adds what the program itself finds good and bad. What differs
// counts as worse if luck does not explain it, three heartbeats in a row, so a small sample finds
// only what is much worse: docs/processes.md has the figures. A canary needs a heartbeat
// (Liveness.Every).
type Canary struct {
	// Slots is how many slots get the new generation first, fewer than there are; zero = no canary.
	// A pool that has no more slots when it is reloaded has no canary.
	Slots int

	// For is how long both generations run, at least; zero = 1 min. The first tenth of it counts
	// only for crashes. It is longer if one of the two has not served Requests by then: the canary
	// is held until it has, or until a human decides.
	For time.Duration

	// Watch is how long after the reload the tree still goes back by itself, when the new
	// generation becomes worse than the old one was; zero = it does not. Another reload ends it.
	Watch time.Duration

	// Requests is how many requests, or reports, each generation must have before it is judged by
	// them; zero = 2000, None = 0.
	Requests int

	// Crashes is how many workers of the new generation must have died, which must be more than by
	// the rate of the old one; zero = 2.
	Crashes int

	Errors float64 // by how much the share of 5xx, or of bad reports, may be higher; zero = 0.005
	Slower float64 // how many times as high median and 99th percentile of the latency may be; zero = 1.1

	// Memory is by how many bytes a worker may grow more than one of the old generation in the same
	// time; zero = memory is not judged. A fresh worker grows for a while.
	Memory int64

	// Judge, if set, is what the program itself finds, besides the rule: an error means that
	// generation after is worse than before, and why. It is called in the master at each heartbeat,
	// while both serve and within Watch, on the goroutine that judges, which waits for it; ctx ends
	// with the judgement. A panic in it is an error.
	Judge func(ctx context.Context, before, after int) error
}

// isZero reports whether nothing is set.
func (a Canary) isZero() bool { return reflect.ValueOf(a).IsZero() }

// worse returns what Judge finds.
func (a Canary) worse(ctx context.Context, before, after int) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if a.Judge == nil {
		return nil
	}
	return a.Judge(ctx, before, after)
}

// Errors of a canary.
var (
	// ErrWorse is wrapped by the error of a reload that went back because the new generation was
	// found worse than the old one, or a human said so.
	ErrWorse = errors.New("coppice: the new generation is worse")

	// ErrNoCanary is returned by EndCanary when no generation is being judged.
	ErrNoCanary = errors.New("coppice: no generation is being judged")
)

func (a Canary) complete() Canary {
	if a.Slots > 0 {
		a.For, a.Requests, a.Crashes = cmp.Or(a.For, time.Minute), cmp.Or(a.Requests, 2000), cmp.Or(a.Crashes, 2)
		a.Errors, a.Slower = cmp.Or(a.Errors, 0.005), cmp.Or(a.Slower, 1.1)
	}
	return a
}

// rule returns the part of a that internal/canary needs, to judge for a time.
func (a Canary) rule(limit time.Duration) canary.Config {
	return canary.Config{For: limit, Requests: uint64(max(a.Requests, 0)), Crashes: a.Crashes, Errors: a.Errors, Slower: a.Slower, Memory: a.Memory}
}

func (a Canary) validate(bad reportInvalid, path string, p Pool) {
	notNegative(bad, path, "Canary.For", a.For)
	notNegative(bad, path, "Canary.Watch", a.Watch)
	switch {
	case a.Slots < 0:
		bad(path, "Canary.Slots", a.Slots, "is negative")
	case a.Slots == 0 && !a.isZero():
		bad(path, "Canary.Slots", a.Slots, "is missing: the other fields need it")
	case a.Slots > 0 && p.Size > 0 && a.Slots >= p.Size:
		bad(path, "Canary.Slots", a.Slots, "leaves no slot to compare with")
	case a.Slots > 0 && p.Liveness.Every == None:
		bad(path, "Canary.Slots", a.Slots, "needs a heartbeat: Liveness.Every is None")
	}
	if a.Requests < None {
		bad(path, "Canary.Requests", a.Requests, "is negative")
	}
	if a.Crashes < 0 {
		bad(path, "Canary.Crashes", a.Crashes, "is negative")
	}
	if a.Errors < 0 || a.Errors > 1 {
		bad(path, "Canary.Errors", a.Errors, "is not between 0 and 1")
	}
	if a.Slower != 0 && a.Slower < 1 {
		bad(path, "Canary.Slower", a.Slower, "is below 1")
	}
	if a.Memory < 0 {
		bad(path, "Canary.Memory", a.Memory, "is negative")
	}
}
