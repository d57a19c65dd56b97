package coppice

import (
	"cmp"
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/image"
)

// Serve is [Main] with one pool of n workers named "workers", and defaults for the rest.
func Serve(n int, fn WorkerFunc) {
	Main(Config{Children: []ChildSpec{Pool{Name: "workers", Size: n, Worker: fn}}})
}

// Main is [Run] for a program that is the tree and nothing else: Run handles the program's signals
// and notifies systemd. Main does not return: it prints the error, if any, to standard error, and
// exits with [ExitCode]. If the caller's deferred calls must run, call Run.
func Main(cfg Config) {
	cfg.Service.Signals, cfg.Service.Notify, cfg.entry = true, true, "Main"
	err := Run(context.Background(), cfg)
	if err != nil {
		cfg.console().line(err)
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
	cfg = cfg.defaults()
	con := cfg.console() // its log is not queued: the last line comes after the queue
	cfg.Logger = queued(cfg.Logger)
	cfg.entry = cmp.Or(cfg.entry, "Run")
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var systemd *serviceManager
	if cfg.Service.Notify {
		systemd, cfg.store = newServiceManager(cfg.Logger), openStore(cfg.Logger)
		var armed time.Duration
		if image.Replaced() {
			armed = systemd.watchdog()
		}
		cfg.starting = func() func() { return systemd.starting(extendEvery, armed) }
	}
	up := make(chan *Runtime, 1)
	var turns chan chan<- struct{} // nil when no goroutine handles the signals
	var last sync.Mutex            // locked for good by what ends the program: the end of the tree, or a second signal
	if cfg.Service.Signals {
		turns = make(chan chan<- struct{})
		survivePipeSignal()
		done := make(chan struct{})
		defer close(done)
		inbox := newSignalInbox()
		cfg.asked = func() bool { return inbox.stops(turns) || ctx.Err() != nil }
		go handleSignals(inbox, cfg, con, up, done, stop, systemd.ended, &last, turns) // ends soon after Run
	}
	err := run(ctx, cfg, func(rt *Runtime) func() {
		up <- rt
		stopping := systemd.up(rt.managed(turns))
		rt.manager.Store(systemd) // from now on a reload is reported to systemd
		return stopping
	})
	last.Lock() // after a second signal Run does not return: what it killed looks like an orderly end
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
	case <-ctx.Done():
	}
	ending()
	return rt.Run(ctx)
}

// Run waits until the tree ends or ctx ends, and then shuts it down within Config.Shutdown. It
// returns nil after an orderly end that was asked for, otherwise why the tree ended. It is for a
// program whose parts end together, with a tree as one of them:
//
//	rt, err := coppice.Start(ctx, cfg) // in a child it does not return: what follows is the master's
//	if err != nil {
//		return err
//	}
//	g, ctx := errgroup.WithContext(ctx)
//	g.Go(func() error { return rt.Run(ctx) })
//	g.Go(func() error { return serveAdmin(ctx, rt) })
//	return g.Wait()
func (rt *Runtime) Run(ctx context.Context) error {
	select {
	case <-rt.Done(): // then Shutdown says why
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), rt.cfg.Shutdown)
	defer cancel()
	return rt.Shutdown(bounded)
}
