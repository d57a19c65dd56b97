package coppice

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// heed acts on the signals of the program for as long as it lives, as Main's text
// has it. up is the tree once it has started; stop asks it to end. A signal that
// was ignored when the program began (nohup(1), a shell's background job) stays so.
func heed(up *atomic.Pointer[Runtime], stop func()) {
	heeded := []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGUSR1, syscall.SIGUSR2}
	signals := make(chan os.Signal, len(heeded))
	for _, sig := range heeded {
		if sig == syscall.SIGTERM || !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	stopping := false
	// One reload that waits does for all that are asked for meanwhile: it will find
	// what they were to find.
	waits := make(chan *Runtime, 1)
	go func() { // ends with the program
		for rt := range waits {
			if err := rt.Reload(context.Background()); err != nil { // bounded by the tree's end
				rt.log.Error("reload by signal", "err", err)
			}
		}
	}()
	for sig := range signals {
		switch rt := up.Load(); {
		case (sig == syscall.SIGTERM || sig == syscall.SIGINT) && !stopping:
			stopping = true
			stop()
		case sig == syscall.SIGTERM || sig == syscall.SIGINT:
			fmt.Fprintln(os.Stderr, "coppice: second signal: killing what is left")
			killAll()
			os.Exit(exitFailed)
		case rt == nil:
			fmt.Fprintf(os.Stderr, "coppice: %v before the tree is up: ignored\n", sig)
		case sig == syscall.SIGHUP:
			select {
			case waits <- rt:
			default:
			}
		case sig == syscall.SIGTTIN:
			go rt.scaleBySignal(+1) // ends with the scaling, or the tree
		case sig == syscall.SIGTTOU:
			go rt.scaleBySignal(-1)
		case sig == syscall.SIGUSR1:
			fmt.Fprint(os.Stderr, rt.Snapshot())
		case sig == syscall.SIGUSR2:
			rt.log.Warn("SIGUSR2 has no meaning yet: ignored")
		}
	}
}

// scaleBySignal gives the only pool, or the first, one worker more or less.
func (rt *Runtime) scaleBySignal(by int) {
	if err := rt.scaleBy(context.Background(), "", by); err != nil {
		rt.log.Error("scale by signal", "by", by, "err", err)
	}
}
