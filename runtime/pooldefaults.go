package coppice

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/supervisor"
)

// Defaults of a pool.
const (
	defaultPoolShutdown = 10 * time.Second
	spareRetry          = time.Second // first wait after a spare or a recycling has failed
	maxSpareRetry       = time.Minute
)

// listenerShutdown bounds the stop of the listener process, which has nothing under way then.
const listenerShutdown = 2 * time.Second

// memberShutdown bounds the stop of the member, which closes its log.
const memberShutdown = 5 * time.Second

// memberIntensity is the restart budget of the member: none. What it has to say is in its log, and
// the tree goes on without it.
var memberIntensity = supervisor.Intensity{Max: 1 << 20, Period: 10 * time.Second}

// listenerIntensity is the restart budget of the listener process, which has a separate supervisor.
var listenerIntensity = supervisor.Intensity{Max: 100, Period: 10 * time.Second}

// poolIntensity is for workers that are killed from outside and replaced in milliseconds; OTP's 1
// in 5 s is for the actors of one process.
var poolIntensity = supervisor.Intensity{Max: 10, Period: 10 * time.Second}

// poolBackoff spaces starts that fail, and restarts over the budget: long enough for the machine,
// and no longer than a client in the backlog can wait. A worker that lives for less than a second
// does not begin anew, so that no crash loop of a slot goes on faster than about twice a second.
var poolBackoff = supervisor.Backoff{Initial: 50 * time.Millisecond, Max: time.Second, ResetAfter: time.Second, AtOnce: true}

// complete returns p with every zero value replaced by its default.
func (p Pool) complete() Pool {
	p.Size = p.size()
	if p.Intensity == (supervisor.Intensity{}) {
		p.Intensity = poolIntensity
	}
	p.StartTimeout = cmp.Or(p.StartTimeout, defaultStartTimeout)
	p.Shutdown = cmp.Or(p.Shutdown, defaultPoolShutdown)
	if !p.OTP && p.Backoff == (supervisor.Backoff{}) {
		p.Backoff = poolBackoff
	}
	p.Recycle = p.Recycle.complete()
	p.Autoscale = p.Autoscale.complete()
	p.Canary = p.Canary.complete()
	p.Rollout = p.Rollout.complete(p.Size)
	return p
}

// forksItself reports whether the workers are processes of this program.
func (p Pool) forksItself() bool { return p.Isolation == ProcessIsolation && p.Command == nil }

// environment returns that of a worker of a pool, complete, that has size slots now, with a share
// of the memory if it gets one. environ is the master's; cgroup is what its cgroups limit the
// memory to, 0 = they do not, and memory is what the master has, in bytes.
func (p Pool) environment(size int, environ []string, cgroup, memory int64) Environment {
	e, said := p.Environment, p.Recycle.SoftMemory != 0 || p.Recycle.HardMemory != 0
	said = said || e.MemoryLimit != 0 || e.Resources.MemoryMax != 0 || e.Cgroup != ""
	if !said && cgroup > 0 && !slices.ContainsFunc(environ, func(kv string) bool { return strings.HasPrefix(kv, "GOMEMLIMIT=") }) {
		e.MemoryLimit = FairShare
	}
	e.MemoryLimit = e.memoryLimit(max(p.Size, size, p.Autoscale.Max)+p.Spares, memory)
	return e
}

// persists reports whether the pool goes on over its budget while its workers show that they can
// live. With a budget of none its supervisor handles the first failure.
func (p Pool) persists() bool {
	return !p.OTP && p.Strategy == supervisor.OneForOne && p.Intensity.Max > 0
}

// startTogether returns how many workers may be starting at once when the pool starts.
func (p Pool) startTogether() int {
	if p.OTP || p.Strategy != supervisor.OneForOne {
		return 1
	}
	return cmp.Or(p.MaxParallelStarts, process.CPUs())
}

// rules returns the part of p that internal/pool needs; p must be complete.
func (p Pool) rules() pool.Config {
	retries := maxKilledStarts
	if p.OTP {
		retries = 0
	}
	return pool.Config{
		Surge: max(p.Rollout.Surge, 0), Unavailable: p.Rollout.Unavailable, Spares: p.Spares,
		Draining: p.Rollout.MaxDraining, Recycling: p.Recycle.Max, RemovalOrder: pool.RemovalOrder(p.ScaleDown),
		Retry: spareRetry, MaxRetry: maxSpareRetry, KillRetries: retries,
	}
}

// maxKilledStarts is how often a start is tried again when its worker is killed from outside.
const maxKilledStarts = 5
