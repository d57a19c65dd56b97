package coppice

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/logqueue"
	"github.com/coppice-go/coppice/runtime/internal/queue"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
)

// maxEarlySignals is how many signals may wait until the tree is up. A reload and a few
// workers more or less is all that anybody has asked for.
const maxEarlySignals = 16

// handleSignalTurns asks the goroutine of handleSignals to close what is sent: it takes its turns.
var handleSignalTurns = make(chan chan<- struct{})

// sameStopSignal is how long after the first signal to end a SIGTERM is taken for the same
// order by another sender: a service manager sends one to the program and one to each
// process of the service, and a wrapper passes on what the terminal has sent to both.
const sameStopSignal = time.Second

// sameKeystroke is how long after the first signal the same one is taken for its echo: the
// terminal sends Ctrl-C to the program and to a wrapper, which passes it on. No hand is that quick.
const sameKeystroke = 100 * time.Millisecond

// maxQueuedTrees bounds the trees that SIGUSR1 has asked for and that are not printed yet;
// what is asked for beyond it is not printed.
const maxQueuedTrees = 4

// handleSignals acts on the signals of the program until done is closed, as [Service] has it. up
// brings the tree once it has started; stop asks it to end; ended tells why the program is about
// to exit. A signal that was ignored when the program began (nohup(1), a shell's background job)
// stays so.
func handleSignals(up <-chan *Runtime, done <-chan struct{}, stop func(), ended func(error)) {
	heeded := []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGUSR1, syscall.SIGUSR2}
	signals := make(chan os.Signal, len(heeded))
	for _, sig := range heeded {
		if sig == syscall.SIGTERM || !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	prints := queue.New(queue.Config[Tree]{ // standard error may be stuck
		Max: maxQueuedTrees, Take: func(t Tree) error { _, err := fmt.Fprint(os.Stderr, t); return err },
	})
	var stopped time.Time   // when it was asked to end
	var first os.Signal     // by which
	var rt *Runtime         // nil until the tree is up
	var waiting []os.Signal // for it
	// One reload that waits does for all that are asked for meanwhile: it will find
	// what they were to find.
	reloads := make(chan *Runtime, 1)
	defer close(reloads)
	go func() { // ends with handleSignals, and the reload that goes on
		for rt := range reloads {
			_ = rt.Reload(context.Background()) // bounded by the tree's end; one that fails is in the log
		}
	}()
	act := func(sig os.Signal) {
		ends := sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT
		if sig == syscall.SIGQUIT {
			go stacks.Print() // ends by itself, or with the program
		}
		switch {
		case ends && stopped.IsZero():
			stopped, first = time.Now(), sig
			stop()
		case sig == syscall.SIGTERM && time.Since(stopped) < sameStopSignal, sig == first && time.Since(stopped) < sameKeystroke:
		case ends:
			killAll()
			err := errors.New("coppice: second signal: killing what is left")
			logqueue.PrintLine(os.Stderr, err)
			ended(err)
			os.Exit(childproto.ExitFailed)
		case sig == syscall.SIGTTOU && sentByTerminal():
			// The terminal's, not an operator's: caught, it is sent for each try to write,
			// without end; ignored, the write succeeds.
			signal.Ignore(sig)
		case rt == nil:
			if len(waiting) < maxEarlySignals {
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
			prints.Put(rt.Snapshot())
		case sig == syscall.SIGUSR2:
			rt.log.Warn("SIGUSR2 has no meaning yet: ignored")
		}
	}
	for {
		select {
		case sig := <-signals:
			act(sig)
		case <-done:
			if !stopped.IsZero() { // the same order by another sender ends no program that is ending
				time.Sleep(sameStopSignal - time.Since(stopped))
			}
			signal.Stop(signals)
			return
		case turned := <-handleSignalTurns:
			close(turned)
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

// survivePipeSignal has a write to a standard output or error whose reader has gone fail,
// where it would end the program (os/signal, SIGPIPE): the reader of a log is not worth
// a tree. What this program starts still has the signal at its default.
func survivePipeSignal() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // nobody reads it: it is enough that there is one
}
