package coppice

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/coppice-go/coppice/fdipc"
)

// Exit codes of Main, and of every child of the tree.
const (
	exitOK     = 0
	exitFailed = 1 // the tree gave up, or could not start
	exitUsage  = 2 // a spec, a flag or an environment that cannot be used
)

// Serve is [Main] with one pool of n workers named "workers" and defaults
// everywhere else.
func Serve(n int, fn WorkerFunc) {
	Main(Config{Children: []ChildSpec{Pool{Name: "workers", Size: n, Worker: fn}}})
}

// Main runs the tree until it ends or a signal ends it, and then exits; it never
// returns. SIGTERM and SIGINT shut down in order (see [Runtime.Shutdown]) and exit
// with 0; a second one kills what is left and exits with 1. The exit code is 1 as
// well when the tree gave up or could not start, and 2 when the Config or the
// environment cannot be used; one line on standard error says why.
func Main(cfg Config) {
	ctx, stop := context.WithCancel(context.Background())
	if !InChild() {
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
		go func() { // ends with the process
			<-signals
			stop()
			<-signals
			fmt.Fprintln(os.Stderr, "coppice: second signal: killing what is left")
			killAll()
			os.Exit(exitFailed)
		}()
	}
	err := Run(ctx, cfg)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(exitCode(err))
}

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if _, ok := errors.AsType[*InvalidError](err); ok {
		return exitUsage
	}
	if errors.Is(err, fdipc.ErrInherit) {
		return exitUsage
	}
	return exitFailed
}

// Run starts the tree, waits until it ends by itself or ctx does, and then shuts
// it down within Config.Shutdown. It returns nil after an orderly end that ctx
// asked for, during the start too, otherwise why the tree ended. It handles no signal and never exits
// the master; in a child process it does not return.
func Run(ctx context.Context, cfg Config) error {
	rt, err := Start(ctx, cfg)
	if err != nil {
		if cause := ctx.Err(); cause != nil && errors.Is(err, cause) {
			return nil // asked to end while it started; what was started is stopped again
		}
		return err
	}
	select {
	case <-rt.Done():
		return rt.Wait()
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.defaults().Shutdown)
	defer cancel()
	return rt.Shutdown(bounded)
}

// inherit looks once for the channel that a child of the tree was started with.
var inherit = sync.OnceValue(func() (in struct {
	channel *os.File
	ok      bool
	err     error
},
) {
	in.channel, _, in.ok, in.err = fdipc.Inherited()
	return in
})

// InChild tells whether this process was started as a child of a tree: what
// stands before Main, Run or Start runs there too.
func InChild() bool {
	in := inherit()
	return in.ok || in.err != nil
}
