package coppice

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"syscall"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/supervisor"
)

// A ChildSpec is one child of the tree: a [Pool], a [Func], an [Actor], a
// [Process], a [Supervisor] or a [ListenerSpec]. Specs are plain struct literals,
// read once by [Start] and never changed by it.
type ChildSpec interface {
	childName() string
}

// A WorkerFunc is the life of one worker. It is ready when it calls
// [Worker.Ready] (or [Worker.Serve], which does), and it should return soon
// after ctx ends, which is how a stop is asked for. What it returns is the
// worker's exit reason: nil is Normal, an error is an error; after a stop was
// asked for, nil or ctx's own error is Shutdown.
type WorkerFunc func(ctx context.Context, w *Worker) error

// A Pool is a supervisor over Size workers that run the same function. Each
// has a slot, 0 to Size-1, which its replacement keeps, and the registered name
// Name/slot.
//
// Other workers take the places of those that a slot has, without its supervisor's
// doing and without a gap: by [Runtime.Reload], by Recycle. What is replaced drains
// outside its slot, and the pool has not ended before it has. See [PoolEvent].
type Pool struct {
	Name string // unique among its siblings; up to 64 bytes without space, /, @ and $
	Size int    // number of workers, 1 to 4096; 0 = one for each CPU

	Worker WorkerFunc // required

	// Prepare runs before Worker, in every worker: what can be done before the worker has a
	// slot, so that a spare has it behind it. It may use ID, Config, System and Lookup; Slot
	// is None, and Listen and Ready are refused. An error is that of the start. nil = nothing.
	Prepare WorkerFunc

	Strategy supervisor.Strategy // over the slots; OneForOne by default
	Restart  supervisor.Restart  // of each worker; Permanent by default

	// Intensity is how many restarts are made at once; zero = 10 in 10 s (OTP's 1 in 5 s
	// suits no pool). Beyond it Backoff holds them apart, and an error in the log says so,
	// at the first, the second, the fourth, and so on. The pool gives up when the budget is
	// used up and no worker is ready, nor was within the Period: it cannot live. With a Max
	// of 0, with a Strategy other than OneForOne and with OTP it gives up in any case.
	Intensity supervisor.Intensity

	// Backoff is between starts that fail, and between restarts beyond Intensity; zero =
	// 50 ms, doubling up to 1 s. One of your own holds every restart back, unless its
	// AtOnce is set. What the master lacks for a start counts nowhere: it waits for that.
	Backoff supervisor.Backoff

	// OTP chooses Erlang's rules to the letter: every attempt counts, those included for
	// which the master lacks something, there is no back-off, the pool gives up when the
	// budget is used up, and workers are stopped one by one. Conflicts with Backoff.
	OTP bool

	Liveness Liveness // how it is found out whether a worker still does its work

	Environment Environment // what each process is started with, besides the program

	// Listen is what the workers may ask the master to listen on, besides the Listeners of the
	// tree, which they may have all. Zero = nothing more where Environment has a User, a Group or
	// Groups, so that the workers may do less than the master, who opens the socket; else
	// anything. What is not allowed fails with an error that wraps ErrListenDenied and EACCES.
	Listen ListenRules

	// Isolation is what a worker is: a process of its own (the default), or a
	// goroutine of the master with everything else the same.
	Isolation Isolation

	// StartTimeout bounds the time to ready; zero = 30 s. It begins before the fork, with
	// the look for what Environment names. A worker that is not ready by then is killed, and
	// its start has failed.
	StartTimeout time.Duration

	// Shutdown bounds the time from the request to stop until the kill; zero =
	// 10 s. Nine tenths of it are the drain: Worker.WorkContext ends then, and a
	// process gets SIGTERM. supervisor.BrutalKill kills at once.
	Shutdown time.Duration

	// StopInOrder stops the workers one after the other, highest slot first, as OTP stops the
	// children of a supervisor: the times add up. By default all are asked at once when the
	// pool ends, and each has Shutdown.
	StopInOrder bool

	// SuccessExit are exit codes that are as good as 0, besides 0: their reason is
	// Normal, and a transient worker stays down.
	SuccessExit []int

	// Spares are workers beyond Size that have run Prepare and wait: when a worker dies one
	// takes its slot at once, and a new spare grows behind it. 0 to 4096.
	Spares int

	Rollout Rollout // how a reload, or a recycling, goes through the slots

	Recycle   Recycle        // who is replaced for having done its share; zero = nobody
	ScaleDown ScaleDownOrder // who goes when the pool is scaled down; the youngest by default
}

// A Rollout says how a reload, or a recycling, goes through the slots of a pool.
type Rollout struct {
	// Surge is how many slots at once have their new worker started while the old one works on;
	// zero = 1, None = none, which needs an Unavailable.
	Surge int

	// Unavailable is how many slots more, at most, may be without a worker meanwhile: there the
	// old one has ended before the new one is started; zero = none.
	Unavailable int

	// StopFirst is for a resource that only one worker may have: every old worker has ended
	// first, Unavailable (zero = 1) at once. Conflicts with a Surge.
	StopFirst bool

	// MaxDraining is how many workers may drain at once after others have taken their places,
	// of however many generations; beyond it the one that has drained longest is cut short.
	// Zero = twice Size and one.
	MaxDraining int
}

func (r Rollout) validate(bad reportInvalid, path string) {
	if r.Surge < None {
		bad(path, "Rollout.Surge", r.Surge, "is negative")
	}
	if r.Unavailable < 0 {
		bad(path, "Rollout.Unavailable", r.Unavailable, "is negative")
	}
	if r.StopFirst && r.Surge > 0 {
		bad(path, "Rollout.Surge", r.Surge, "stands beside StopFirst")
	}
	if r.Surge == None && r.Unavailable == 0 && !r.StopFirst {
		bad(path, "Rollout.Surge", "None", "needs an Unavailable: no worker could be replaced")
	}
	if r.MaxDraining < 0 {
		bad(path, "Rollout.MaxDraining", r.MaxDraining, "is negative")
	}
}

// complete returns r with every zero value replaced by its default, for a pool of that size.
func (r Rollout) complete(size int) Rollout {
	r.MaxDraining = cmp.Or(r.MaxDraining, 2*size+1)
	if r.StopFirst {
		r.Surge, r.Unavailable = None, cmp.Or(r.Unavailable, 1)
	}
	r.Surge = cmp.Or(r.Surge, 1)
	return r
}

// A Func is a goroutine of the master: Run returns when ctx ends. A panic is
// its exit reason, not the master's end.
type Func struct {
	Name    string
	Run     func(ctx context.Context) error // required
	Restart supervisor.Restart
	// Shutdown bounds the time Run has to return; zero = 5 s. A goroutine
	// cannot be killed: one that stays longer is counted as leaked.
	Shutdown time.Duration
}

// An Actor is a protoactor-go actor in the master, reachable from every process
// of the tree by its path, for example Lookup("sessions").
type Actor struct {
	Name    string
	New     func() actor.Actor // required; called once for each incarnation
	Restart supervisor.Restart

	// Bound is how many messages may wait in its mailbox: at the bound the senders wait,
	// in whatever process they are (see [actors.Wait]). Zero means [actors.DefaultBound]
	// for those in other processes and no bound for those in the master; math.MaxInt
	// means no bound.
	Bound int

	Shutdown time.Duration // zero = 5 s
}

// A Process is a program that is not this one, or a process of this one that is no
// worker. It leads a process group: what it starts itself is stopped and killed
// with it, and what it leaves behind there is ended after it. docs/processes.md
// has the steps.
type Process struct {
	Name string

	// Command is the program and its arguments. A program without a slash is looked
	// up in the master's PATH, a relative one begins at Environment.Dir.
	Command []string

	Environment Environment // what else it is started with

	// Ready is how it shows that it does its work; zero = it counts as started once
	// it runs. The next child is started then.
	Ready Ready

	// StartTimeout bounds the time to ready; zero = 30 s. It begins before the fork, with
	// the look for the program and what Environment names. A program that is not ready by
	// then is killed, and its start has failed.
	StartTimeout time.Duration

	Restart supervisor.Restart

	// Stop is the signal that asks the program, not its group, to end; nine tenths of
	// Shutdown later the group gets SIGTERM. Zero = the group gets SIGTERM at once.
	Stop syscall.Signal

	// Shutdown bounds the time from the request to stop until SIGKILL to the group;
	// zero = 5 s. supervisor.BrutalKill kills at once, supervisor.Infinity never.
	Shutdown time.Duration

	// SuccessExit are exit codes that are as good as 0, besides 0: their reason is
	// Normal, and a transient child stays down.
	SuccessExit []int
}

// A Supervisor groups children under a strategy and a restart budget of their
// own. It starts them in order and stops them in reverse.
type Supervisor struct {
	Name      string
	Strategy  supervisor.Strategy
	Intensity supervisor.Intensity // zero = OTP's 1 in 5 s
	Restart   supervisor.Restart   // of the supervisor itself
	Children  []ChildSpec
}

// Isolation is what separates a worker from the master.
type Isolation uint8

const (
	// ProcessIsolation runs each worker in an OS process of its own. Linux only.
	ProcessIsolation Isolation = iota
	// GoroutineIsolation runs each worker as a goroutine of the master, with its
	// own channel, actor system and listeners: for debuggers, tests and other
	// systems. A panic is still only the worker's end, but what recover cannot
	// catch ends the program, and a worker that will not stop is leaked. However a worker
	// ends, the connections that it accepted end with it, as those of a process.
	GoroutineIsolation
)

// String returns process or goroutine.
func (i Isolation) String() string {
	switch i {
	case ProcessIsolation:
		return "process"
	case GoroutineIsolation:
		return "goroutine"
	}
	return fmt.Sprintf("Isolation(%d)", uint8(i))
}

// ParseIsolation returns the isolation named s: process or goroutine.
func ParseIsolation(s string) (Isolation, error) {
	for _, i := range []Isolation{ProcessIsolation, GoroutineIsolation} {
		if i.String() == s {
			return i, nil
		}
	}
	return 0, fmt.Errorf("coppice: isolation %q is neither process nor goroutine", s)
}

// size is the number of workers.
func (p Pool) size() int {
	if p.Size == 0 {
		return runtime.NumCPU()
	}
	return p.Size
}

func (p Pool) childName() string         { return p.Name }
func (f Func) childName() string         { return f.Name }
func (a Actor) childName() string        { return a.Name }
func (p Process) childName() string      { return p.Name }
func (s Supervisor) childName() string   { return s.Name }
func (l ListenerSpec) childName() string { return l.Name }

// None, where the zero value of a field is a default, chooses none of it: no Rollout.Surge, no
// heartbeat (Liveness.Every), no time for orphans (Config.OrphanDrain), no keep-alive. As a slot it
// says that a worker has none.
const None = -1

// ScaleDownOrder says which workers go when a pool is scaled down. One that is not running goes
// first in any case.
type ScaleDownOrder uint8

// The values of ScaleDownOrder.
const (
	YoungestFirst  ScaleDownOrder = iota // the one that was started last
	OldestFirst                          // the one that was started first
	LeastBusyFirst                       // the one with the fewest open connections of dispatched listeners
)

// String returns youngest, oldest or least-busy.
func (c ScaleDownOrder) String() string { return pool.RemovalOrder(c).String() }

// defaultStartTimeout is that of a pool, and of the listener process.
const defaultStartTimeout = 30 * time.Second
