package coppice

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/coppice-go/coppice/fdipc"
)

// Exit codes of Main, and of every child of the tree.
const (
	exitOK     = 0
	exitFailed = 1  // the tree gave up, or could not start
	exitCut    = 69 // of a child: its channel to the master has ended, and nothing else is wrong with it (EX_UNAVAILABLE of sysexits.h)
	exitUsage  = 2  // a spec, a flag or an environment that cannot be used
)

// Serve is [Main] with one pool of n workers named "workers" and defaults
// everywhere else.
func Serve(n int, fn WorkerFunc) {
	Main(Config{Children: []ChildSpec{Pool{Name: "workers", Size: n, Worker: fn}}})
}

// Main runs the tree until it ends or a signal ends it, and then exits; it never
// returns. The exit code is 0 after an end that was asked for, 1 when the tree gave
// up or could not start, and 2 when the Config or the environment cannot be used;
// one line on standard error says why.
//
// The signals of the master:
//
//	SIGTERM, SIGINT  shut down in order (Runtime.Shutdown); the second one kills what is left and exits with 1,
//	                 but for a SIGTERM within 1 s of the first, or the first again within 0.1 s, which is the
//	                 same order by another sender
//	SIGQUIT          print the stacks of the master's goroutines, and shut down like SIGTERM
//	SIGHUP           reload (Runtime.Reload); one that comes meanwhile waits
//	SIGTTIN, SIGTTOU one worker more, or less, in the only pool, or the first of several (Runtime.Scale)
//	SIGUSR1          print the tree to standard error
//	SIGPIPE          ignored: a standard output or error whose reader has gone costs the lines
//	SIGUSR2          reserved: ignored, with a line in the log
//	others           what Go does with them: SIGABRT ends it with a dump; the children drain as orphans
//
// SIGTTOU that the terminal sends, to a background job that writes to it (stty tostop),
// is no order: it is ignored from then on, and what is written appears.
//
// Those that are about a tree that runs wait until it is up.
//
// Children lead process groups of their own, so that what a terminal sends reaches
// the master alone. What is sent to all processes (systemd's KillMode=control-group,
// pkill) has the same effect as if the master alone had got it, in whatever order it
// arrives: children pass on to the master what tells them to end, and ignore the rest.
// An operator's SIGTERM to one worker has it replaced, without a gap and without
// counting as a failure; one that is not Permanent drains, and nobody takes its place.
//
// Started by systemd, Main tells it of the tree: see [ListenerSpec] for sockets, and
// docs/systemd.md.
func Main(cfg Config) {
	ctx, stop := context.WithCancel(context.Background())
	up := make(chan *Runtime, 1)
	var systemd *serviceManager
	if !IsChild() {
		cfg = cfg.defaults().queued()
		systemd = newServiceManager(cfg.Logger)
		survivePipeSignal()
		go handleSignals(up, stop, systemd.ended) // ends with the process
	}
	err := run(ctx, cfg, func(rt *Runtime) func() {
		up <- rt
		stopping := systemd.up(rt.managed())
		rt.manager.Store(systemd) // a reload is told of from now on
		return stopping
	})
	if err != nil {
		printLine(os.Stderr, err)
	}
	systemd.ended(err)
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if _, ok := errors.AsType[*InvalidError](err); ok {
		return exitUsage
	}
	if errors.Is(err, fdipc.ErrInherit) || errors.Is(err, ErrTooDeep) {
		return exitUsage
	}
	return exitFailed
}

// Run starts the tree, waits until it ends by itself or ctx does, and then shuts
// it down within Config.Shutdown. It returns nil after an orderly end that ctx
// asked for, during the start too, otherwise why the tree ended. It handles no
// signal, tells systemd nothing, and never exits the master; in a child process it
// does not return.
func Run(ctx context.Context, cfg Config) error {
	return run(ctx, cfg, func(*Runtime) func() { return func() {} })
}

// run is Run. It calls up when the tree is up, and what that returned when the
// tree is about to end, or has ended.
func run(ctx context.Context, cfg Config, up func(*Runtime) (ending func())) error {
	rt, err := Start(ctx, cfg)
	if err != nil {
		if cause := ctx.Err(); cause != nil && errors.Is(err, cause) {
			return nil // asked to end while it started; what was started is stopped again
		}
		return err
	}
	ending := up(rt)
	select {
	case <-rt.Done():
		ending()
		return rt.Wait()
	case <-ctx.Done():
		ending()
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.defaults().Shutdown)
	defer cancel()
	return rt.Shutdown(bounded)
}

// inherit looks once for the channel that a child of the tree was started with.
var inherit = sync.OnceValue(func() (in struct {
	channel *os.File
	env     map[string]string
	ok      bool
	err     error
},
) {
	in.channel, in.env, in.ok, in.err = fdipc.Inherited()
	return in
})

// IsChild tells whether this process was started as a child of a tree: what
// stands before Main, Run or Start runs there too.
func IsChild() bool {
	in := inherit()
	return in.ok || in.err != nil
}
