package coppice

import (
	"context"
	"errors"
	"os"
	"sync"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/logqueue"
)

// Serve is [Main] with one pool of n workers named "workers", and defaults for the rest.
func Serve(n int, fn WorkerFunc) {
	Main(Config{Children: []ChildSpec{Pool{Name: "workers", Size: n, Worker: fn}}})
}

// Main is [Run] for a program that is the tree and nothing else: Run handles the program's signals
// and notifies systemd. Main does not return: it prints the error, if any, to standard error, and
// exits with [ExitCode]. If the caller's deferred calls must run, call Run.
func Main(cfg Config) {
	cfg.Service = Service{Signals: true, Notify: true}
	err := Run(context.Background(), cfg)
	if err != nil {
		logqueue.PrintLine(os.Stderr, err)
	}
	os.Exit(ExitCode(err))
}

// ExitCode returns the exit code for what Run, Start or Runtime.Wait returned: 0 for nil, an end
// that was asked for; 2 when the Config or the environment cannot be used; 1 when the tree gave up,
// could not start, or did not end in time.
func ExitCode(err error) int {
	if err == nil {
		return childproto.ExitOK
	}
	if _, ok := errors.AsType[*InvalidError](err); ok {
		return childproto.ExitUsage
	}
	if errors.Is(err, fdipc.ErrInherit) || errors.Is(err, ErrTooDeep) {
		return childproto.ExitUsage
	}
	return childproto.ExitFailed
}

// A Service is what [Run] does for the program as a service of the system. The zero value leaves
// all of it to the program, as [Start] does.
type Service struct {
	// With Signals, Run handles the program's signals until it returns:
	//
	//	SIGTERM, SIGINT  shut down in order, and return; the second signal kills what still runs and
	//	                 exits with 1, except a SIGTERM within 1 s of the first, or the first again
	//	                 within 0.1 s: these are the same order by another sender
	//	SIGQUIT          print the stacks of the master's goroutines, and shut down like SIGTERM
	//	SIGHUP           reload (Runtime.Reload); a SIGHUP during a reload waits
	//	SIGTTIN, SIGTTOU one worker more, or less, in the only pool, or the first of several
	//	                 (Runtime.Scale)
	//	SIGUSR1          print the tree to standard error
	//	SIGPIPE          ignored, also after Run: when the reader of standard output or error has
	//	                 gone, lines are lost
	//	SIGUSR2          reserved: ignored, with a line in the log
	//	others           as Go handles them: SIGABRT ends the program with a dump; the children
	//	                 drain as orphans
	//
	// Signals that concern a running tree wait until it is up. A SIGTTOU that the terminal sends to
	// a background job that writes to it (stty tostop) is ignored from then on, and the output
	// appears. After Run the program has its signals back, except for those within 1 s of the first
	// that asked it to end.
	//
	// Children lead their own process groups, so that a terminal's signals reach only the master. A
	// signal to all processes (systemd's KillMode=control-group, pkill) has the same effect as a
	// signal to the master alone, in whatever order it arrives: children report a request to end to
	// the master, and ignore the rest. An operator's SIGTERM to a worker replaces it, without a gap
	// and without counting as a failure; a worker that is not Permanent drains and is not replaced.
	Signals bool

	// With Notify, Run notifies systemd of the tree's state, if systemd started the program and set
	// NOTIFY_SOCKET (sd_notify(3)); see docs/systemd.md.
	Notify bool
}

// Run starts the tree, waits until it ends or ctx ends, and then shuts it down within
// Config.Shutdown. It returns nil after an orderly end that ctx or a signal asked for, also during
// the start; otherwise why the tree ended. [Config.Service] adds the handling of signals and the
// messages to systemd. In a child process Run does not return.
//
//	func main() { os.Exit(run()) }
//
//	func run() int {
//		defer cleanUp() // in the master; children exit inside Run
//		err := coppice.Run(context.Background(), coppice.Config{
//			Service:  coppice.Service{Signals: true, Notify: true},
//			Children: []coppice.ChildSpec{coppice.Pool{Name: "web", Worker: work}},
//		})
//		if err != nil {
//			log.Print(err)
//		}
//		return coppice.ExitCode(err)
//	}
func Run(ctx context.Context, cfg Config) error {
	if IsChild() {
		_, err := Start(ctx, cfg)
		return err // of a child that cannot begin
	}
	cfg = cfg.defaults().queued()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var systemd *serviceManager
	if cfg.Service.Notify {
		systemd = newServiceManager(cfg.Logger)
	}
	up := make(chan *Runtime, 1)
	if cfg.Service.Signals {
		survivePipeSignal()
		done := make(chan struct{})
		defer close(done)
		go handleSignals(up, done, stop, systemd.ended) // ends soon after Run
	}
	err := run(ctx, cfg, func(rt *Runtime) func() {
		up <- rt
		stopping := systemd.up(rt.managed())
		rt.manager.Store(systemd) // from now on a reload is reported to systemd
		return stopping
	})
	systemd.ended(err)
	return err
}

// run does the work of Run. It calls up when the tree is up, and the function that up returned when
// the tree is about to end, or has ended.
func run(ctx context.Context, cfg Config, up func(*Runtime) (ending func())) error {
	rt, err := Start(ctx, cfg)
	if err != nil {
		if cause := ctx.Err(); cause != nil && errors.Is(err, cause) {
			return nil // the end was asked for during the start; what was started is stopped again
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

// IsChild reports whether this process was started as a child of a tree. The code before Main, Run
// or Start runs there too.
func IsChild() bool {
	in := inherit()
	return in.ok || in.err != nil
}
