package coppice

import (
	"cmp"
	"fmt"
	"time"
)

// An Autoscale changes the number of workers of a pool within Min and Max, by how long the oldest
// connection has waited for a worker: up fast, by half of what there is at a time, and down slowly,
// one by one. It changes nothing while a reload or an upgrade runs.
//
// A connection waits in the kernel's backlog while a limit of its listener is reached
// ([Limits].PerWorker, Total), and in the listener process or a worker's queue until the worker
// accepts it. An *http.Server accepts at once what it is offered, whatever it has to do: give the
// listener a PerWorker, the number of connections that one worker can serve at a time. Of several
// workers the one in the middle counts, so that one that hangs does not make the pool grow.
// Connections of Shared and ReusePort are not seen.
//
// [Runtime.Scale], signals and a release that changes Size go on working: within Min and Max the
// rule goes on from the number that was set, and takes no worker away within Calm; a number outside
// stays until another is set.
type Autoscale struct {
	Min int // fewest workers; zero = 1
	Max int // most workers, up to 4096; zero = no autoscaling

	// Wait is how long a connection may wait until the pool grows; zero = 100 ms. It is looked at
	// twice in that time, at least once a second and at most 20 times.
	Wait time.Duration

	// Calm is how long no connection has waited for half of Wait, and (with a PerWorker) the open
	// connections would have filled at most three quarters of the other workers, when a worker
	// goes; zero = 1 min. If the pool has to grow again soon after, the next try comes after twice
	// the time, up to 16 Calm.
	Calm time.Duration
}

func (a Autoscale) complete() Autoscale {
	if a.Max > 0 {
		a.Min, a.Wait, a.Calm = cmp.Or(a.Min, 1), cmp.Or(a.Wait, 100*time.Millisecond), cmp.Or(a.Calm, time.Minute)
	}
	return a
}

// clamp returns the number nearest to n that the bounds allow.
func (a Autoscale) clamp(n int) int {
	if a.Max == 0 {
		return n
	}
	return min(max(n, a.Min), a.Max)
}

func (a Autoscale) validate(bad reportInvalid, path string, size int) {
	notNegative(bad, path, "Autoscale.Wait", a.Wait)
	notNegative(bad, path, "Autoscale.Calm", a.Calm)
	switch {
	case a.Max < 0 || a.Max > maxPool:
		bad(path, "Autoscale.Max", a.Max, fmt.Sprintf("is not between 1 and %d (0 = no autoscaling)", maxPool))
	case a.Max == 0 && a != Autoscale{}:
		bad(path, "Autoscale.Max", a.Max, "is missing: the other fields need it")
	case a.Min < 0 || a.Min > a.Max:
		bad(path, "Autoscale.Min", a.Min, fmt.Sprintf("is not between 1 and Max, %d", a.Max))
	case size != 0 && size != a.clamp(size):
		bad(path, "Size", size, fmt.Sprintf("is not between Autoscale.Min and Max, %d and %d", a.Min, a.Max))
	}
}
