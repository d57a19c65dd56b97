package coppice

import (
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
	heeded := []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2}
	signals := make(chan os.Signal, len(heeded))
	for _, sig := range heeded {
		if sig == syscall.SIGTERM || !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	stopping := false
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
		case sig == syscall.SIGUSR1:
			fmt.Fprint(os.Stderr, rt.Snapshot())
		case sig == syscall.SIGUSR2:
			rt.log.Warn("SIGUSR2 has no meaning yet: ignored")
		}
	}
}
