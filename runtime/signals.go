package coppice

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// early is how many signals may wait until the tree is up. A reload and a few
// workers more or less is all that anybody has asked for.
const early = 16

// heed acts on the signals of the program for as long as it lives, as Main's text
// has it. up brings the tree once it has started; stop asks it to end. A signal that
// was ignored when the program began (nohup(1), a shell's background job) stays so.
func heed(up <-chan *Runtime, stop func()) {
	heeded := []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGUSR1, syscall.SIGUSR2}
	signals := make(chan os.Signal, len(heeded))
	for _, sig := range heeded {
		if sig == syscall.SIGTERM || !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	stopping := false
	var rt *Runtime         // nil until the tree is up
	var waiting []os.Signal // for it
	// One reload that waits does for all that are asked for meanwhile: it will find
	// what they were to find.
	reloads := make(chan *Runtime, 1)
	go func() { // ends with the program
		for rt := range reloads {
			if err := rt.Reload(context.Background()); err != nil { // bounded by the tree's end
				rt.log.Error("reload by signal", "err", err)
			}
		}
	}()
	act := func(sig os.Signal) {
		switch {
		case (sig == syscall.SIGTERM || sig == syscall.SIGINT) && !stopping:
			stopping = true
			stop()
		case sig == syscall.SIGTERM || sig == syscall.SIGINT:
			fmt.Fprintln(os.Stderr, "coppice: second signal: killing what is left")
			killAll()
			os.Exit(exitFailed)
		case rt == nil:
			if len(waiting) < early {
				waiting = append(waiting, sig)
			}
		case sig == syscall.SIGHUP:
			select {
			case reloads <- rt:
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
	for {
		select {
		case sig := <-signals:
			act(sig)
		case rt = <-up:
			for _, sig := range waiting {
				act(sig)
			}
		}
	}
}

// scaleBySignal gives the only pool, or the first, one worker more or less.
func (rt *Runtime) scaleBySignal(by int) {
	if err := rt.scaleBy(context.Background(), "", by); err != nil {
		rt.log.Error("scale by signal", "by", by, "err", err)
	}
}
