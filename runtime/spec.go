package coppice

import (
	"cmp"
	"context"
	"fmt"
	"syscall"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/supervisor"
)

// A ChildSpec is one child of the tree: a [Pool], a [Func], an [Actor], a [Process], a [Supervisor]
// or a [ListenerSpec]. Specs are plain struct literals. [Start] reads them once and does not change
// them.
type ChildSpec interface {
	childName() string
}

// A WorkerFunc is the work of one worker. The worker is ready when it calls [Worker.Ready] or
// [Worker.Serve], which calls Ready. The end of ctx asks it to stop; it should return soon after.
// Its result is the worker's exit reason: nil is Normal, an error is an error. After a request to
// stop, nil or ctx's own error is Shutdown.
type WorkerFunc func(ctx context.Context, w *Worker) error

// A Pool is a supervisor over Size workers that run the same function. Each has a slot, 0 to
// Size-1, and the registered name Name/slot; its replacement gets the same slot and name.
//
// [Runtime.Reload] and Recycle replace the worker of a slot without a gap and without its
// supervisor. The replaced worker drains outside the slot, and the pool ends only after it. See
// [Event].
type Pool struct {
	Name string // unique among its siblings; up to 64 bytes without space, /, @ and $

	// Size is the number of workers, 1 to 4096. Zero = one for each CPU that the master may use: by
	// its affinity and by the quotas of its cgroups (rounded up, and at least 2), as Go chooses
	// GOMAXPROCS. What GOMAXPROCS is set to does not count: it is about one process, not the pool.
	Size int

	Worker WorkerFunc // required, unless Function or Command is set

	// Function is the name of a registered function, in place of Worker; see [RegisterFunction]. A
	// pool of processes that [Runtime.StartChild] adds needs one.
	Function string

	// Command is a program and its arguments, in place of Worker: each worker is a process of it,
	// which is looked up as that of a [Process] at each start, and stays in the foreground. It
	// works from its start, as it accepts by itself on the Listeners that it is given. Its
	// variables COPPICE_NAME, COPPICE_SLOT and COPPICE_GENERATION say which worker it is.
	//
	// Slots, restarts, reloads, scaling, recycling, output and crash reports are those of any pool.
	// A spare is ready and works too: it has COPPICE_NAME as a spare, and no COPPICE_SLOT, also
	// when it has got a slot. What the master learns from a worker function it does not know of a
	// program: requests (Recycle.Requests, Tree), connections, the stacks of a program that is not
	// written in Go, actors. See docs/programs.md.
	Command []string

	// Listeners are the names of [ListenerSpec]s that a program gets as open sockets, by the
	// convention of systemd: from descriptor 3 on, with LISTEN_FDS, LISTEN_FDNAMES and LISTEN_PID
	// (sd_listen_fds(3)). Their Policy is [Shared], or [ReusePort] for a socket of each slot. They
	// are non-blocking, since all share them.
	Listeners []string

	// Ready is the sign by which a program shows that it does its work, as in a [Process]. With
	// Ready.Notify it may also say what it does (STATUS=, RELOADING=1), that it ends by itself
	// (STOPPING=1: it has Shutdown for that), and, if Liveness has a Timeout, that it lives:
	// WATCHDOG=1 at least once in each Timeout, which it finds in WATCHDOG_USEC.
	Ready Ready

	// Stop is the signal that asks a program to drain and end, as in a [Process]. Zero = SIGTERM to
	// its group.
	Stop syscall.Signal

	// Prepare runs before Worker, in every worker. It does the work that needs no slot, so that a
	// spare has done it already. It may use ID, Config, System and Lookup; Slot is None, and Listen
	// and Ready are refused. Its error fails the start. nil = nothing.
	Prepare WorkerFunc

	Strategy supervisor.Strategy // over the slots; OneForOne by default
	Restart  supervisor.Restart  // of each worker; Permanent by default

	// Intensity is the restart budget within which restarts are made at once; zero = 10 in 10 s
	// (OTP's 1 in 5 s suits no pool). Beyond it Backoff spaces the restarts, and the log has an
	// error for the first, the second, the fourth, and so on. The pool gives up when the budget is
	// used up and no worker is ready, nor was within the Period: its workers cannot live. With a
	// Max of 0, with a Strategy other than OneForOne and with OTP, the pool gives up whenever the
	// budget is used up.
	Intensity supervisor.Intensity

	// Backoff is the pause between starts that fail, and between restarts beyond Intensity; zero =
	// 50 ms, doubling up to 1 s; a worker that was up for a second, and for twice its latest bound,
	// begins at 50 ms again. A Backoff that you set delays every restart, unless its AtOnce is set.
	// A start for which the master lacks something counts nowhere: it waits until the master has it.
	Backoff supervisor.Backoff

	// OTP selects Erlang's rules to the letter. Every attempt counts, including those for which the
	// master lacks something; there is no back-off; the pool gives up when the budget is used up;
	// and workers are stopped one by one. Conflicts with Backoff.
	OTP bool

	// Liveness is how the master finds out whether a worker still does its work. Of a program
	// nothing is expected without a Liveness.Timeout.
	Liveness Liveness

	Environment Environment // what each process is started with, besides the program

	// Listen limits what the workers may ask the master to listen on, besides the Listeners of the
	// tree, which they may all use. Zero = nothing more if Environment has a User, a Group, Groups
	// or a Sandbox, because such workers must not use the rights of the master, which opens the
	// socket; otherwise anything. What is not allowed fails with an error that wraps
	// ErrListenDenied and EACCES.
	Listen ListenRules

	// Isolation chooses what a worker is: a separate process (the default), or a goroutine of the
	// master, with everything else the same.
	Isolation Isolation

	// StartTimeout bounds the time until the worker is ready; zero = 30 s. It begins before the
	// fork, when the master looks for what Environment names. A worker that is not ready by then
	// has failed to start: it gets SIGABRT, so that it prints its stacks, and 2 s later SIGKILL.
	// After 5 s, or half of StartTimeout if that is less, the log says what the worker has not done
	// yet.
	StartTimeout time.Duration

	// MaxParallelStarts is how many workers may be starting at once when the pool starts, in the
	// order of their slots; zero = one for each CPU that the master may use. With another Strategy
	// than OneForOne and with OTP they start one after the other. A reload has Rollout.Surge.
	MaxParallelStarts int

	// Shutdown bounds the time from the request to stop until the kill; zero = 10 s. Nine tenths of
	// it are the drain: then Worker.WorkContext ends, and a process gets SIGTERM. At the tree's end
	// it may be less: see Config.Shutdown. supervisor.BrutalKill kills at once.
	Shutdown time.Duration

	// StopInOrder stops the workers one after the other, highest slot first, as OTP stops the
	// children of a supervisor; their times add up. By default all are asked at once when the pool
	// ends, and each has Shutdown.
	StopInOrder bool

	// SuccessExit are exit codes that count as success, besides 0: the exit reason is Normal, and a
	// transient worker stays down.
	SuccessExit []int

	// Spares are workers beyond Size that have run Prepare and wait. When a worker dies, a spare
	// takes its slot at once, and a new spare is started. 0 to 4096.
	Spares int

	Rollout Rollout // how a reload or a recycling goes through the slots

	// Canary tries a new generation beside the old one in a reload; zero = every slot gets it at
	// once.
	Canary Canary

	// Autoscale changes the number of workers by how long connections wait for one; zero = the
	// number stays.
	Autoscale Autoscale

	RequestTimeout RequestTimeout // how long each request may take; zero = as long as it does

	Poison Poison // the requests that kill workers are refused; zero = none is

	Recycle   Recycle        // which workers are replaced for having done their share; zero = none
	ScaleDown ScaleDownOrder // which workers go when the pool is scaled down; the youngest by default

	ofHost bool // it is the tree's own: of the gateway, or of the member
}

// A Rollout describes how a reload or a recycling goes through the slots of a pool.
type Rollout struct {
	// Surge is how many slots at once may have a new worker starting while the old worker works on;
	// zero = 1, None = none, which needs an Unavailable.
	Surge int

	// Unavailable is how many further slots, at most, may be without a worker at once. In these
	// slots the old worker ends before the new worker is started; zero = none.
	Unavailable int

	// StopFirst is for a resource that only one worker may have: the old worker of every slot ends
	// before the new worker starts, Unavailable slots (zero = 1) at once. Conflicts with a Surge.
	StopFirst bool

	// MaxDraining is how many replaced workers may drain at once, over all generations. Beyond it
	// the drain of the worker that has drained longest is cut short. Zero = twice Size, plus 1.
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

// complete returns r with every zero value replaced by its default, for a pool of size slots.
func (r Rollout) complete(size int) Rollout {
	r.MaxDraining = cmp.Or(r.MaxDraining, 2*size+1)
	if r.StopFirst {
		r.Surge, r.Unavailable = None, cmp.Or(r.Unavailable, 1)
	}
	r.Surge = cmp.Or(r.Surge, 1)
	return r
}

// A Func is a goroutine of the master: Run returns when ctx ends. A panic in it is its exit reason
// and does not end the master. An upgrade stops it: see [HandOver].
type Func struct {
	Name string
	Run  func(ctx context.Context) error // required; has the tree by [Running]
	// Restart is Permanent by default: when Run fails beyond the budget of the supervisor, 1 in 5 s,
	// that gives up, and below the root the program ends.
	Restart supervisor.Restart
	// Shutdown bounds the time that Run has to return; zero = 5 s. A goroutine cannot be killed: if
	// Run takes longer, the goroutine is counted as leaked.
	Shutdown time.Duration
}

// An Actor is a protoactor-go actor in the master, reachable from every process
// of the tree by its path, for example Lookup("sessions").
type Actor struct {
	Name    string
	New     func() actor.Actor // required; called once for each incarnation. [Running] has the tree
	Restart supervisor.Restart

	// Bound is how many messages may wait in its mailbox. At the bound senders wait, in whatever
	// process they are (see [actors.Wait]). Zero means [actors.DefaultBound] for senders in other
	// processes and no bound for senders in the master; see [actors.Unbounded].
	Bound int

	Shutdown time.Duration // zero = 5 s
}

// A Process is a program other than this one, or a process of this one that is no worker. It leads
// a process group: the processes that it starts are stopped and killed with it, and those that it
// leaves behind are ended after it. docs/processes.md has the steps.
type Process struct {
	Name string

	// Command is the program and its arguments. A program without a slash is looked up in the
	// master's PATH; a relative path starts at Environment.Dir.
	Command []string

	Environment Environment // how it is started, besides the program

	// Listeners are as in a [Pool] of programs; their Policy is [Shared].
	Listeners []string

	// Ready is the sign by which it shows that it does its work; then the next child is started.
	// Zero = it counts as started once it runs.
	Ready Ready

	// StartTimeout bounds the time until the program is ready; zero = 30 s. It begins before the
	// fork, when the master looks for the program and for what Environment names. A program that is
	// not ready by then is killed, and its start has failed.
	StartTimeout time.Duration

	Restart supervisor.Restart

	// Stop is the signal that asks the program, not its group, to end; nine tenths of Shutdown
	// later its group gets SIGTERM. Zero = the group gets SIGTERM at once.
	Stop syscall.Signal

	// Shutdown bounds the time from the request to stop until SIGKILL to the group;
	// zero = 5 s. supervisor.BrutalKill kills at once, supervisor.Infinity never.
	Shutdown time.Duration

	// SuccessExit are exit codes that count as success, besides 0: the exit reason is Normal, and a
	// transient child stays down.
	SuccessExit []int
}

// A Supervisor groups children under their own strategy and restart budget. It starts them in order
// and stops them in reverse. It may begin without children, for [Runtime.StartChild] to add some.
type Supervisor struct {
	Name      string
	Strategy  supervisor.Strategy
	Intensity supervisor.Intensity // zero = OTP's 1 in 5 s
	Restart   supervisor.Restart   // of the supervisor itself
	Children  []ChildSpec
}

// Isolation chooses how a worker is separated from the master.
type Isolation uint8

const (
	// ProcessIsolation runs each worker in a separate OS process. Linux only.
	ProcessIsolation Isolation = iota
	// GoroutineIsolation runs each worker as a goroutine of the master, with its own channel, actor
	// system and listeners: for debuggers, tests and other systems. A panic still ends only the
	// worker, but a fault that recover cannot catch ends the program. A worker that does not stop
	// is leaked. When a worker ends, the connections that it accepted end too, as with a process.
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
		return p.Autoscale.clamp(process.CPUs())
	}
	return p.Size
}

func (p Pool) childName() string         { return p.Name }
func (f Func) childName() string         { return f.Name }
func (a Actor) childName() string        { return a.Name }
func (p Process) childName() string      { return p.Name }
func (s Supervisor) childName() string   { return s.Name }
func (l ListenerSpec) childName() string { return l.Name }

// None chooses "none" in a field whose zero value means a default: no Rollout.Surge, no heartbeat
// (Liveness.Every), no time for orphans (Config.OrphanDrain), no echo (Service.SignalEcho), no
// keep-alive. As a slot it means that a worker has no slot.
const None = -1

// ScaleDownOrder chooses which workers go when a pool is scaled down. A slot without a running
// worker goes first in any case.
type ScaleDownOrder uint8

// The values of ScaleDownOrder.
const (
	YoungestFirst  ScaleDownOrder = iota // the worker that was started last
	OldestFirst                          // the worker that was started first
	LeastBusyFirst                       // the worker with the fewest open connections of dispatched listeners
)

// String returns youngest, oldest or least-busy.
func (c ScaleDownOrder) String() string { return pool.RemovalOrder(c).String() }

// defaultStartTimeout is the StartTimeout of a pool, and of the listener process.
const defaultStartTimeout = 30 * time.Second
