package coppice

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/queue"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
)

// maxEarlySignals is how many signals may wait until the tree is up: enough for a reload and a
// change of the pool's size by some workers.
const maxEarlySignals = 16

// sameStopSignal is how long after the first signal to end a SIGTERM counts as the same order by
// another sender. A service manager sends SIGTERM to the program and to each process of the
// service, and a wrapper passes on a signal that the terminal has sent to both.
const sameStopSignal = time.Second

// sameKeystroke is how long after the first signal the same signal counts as its echo: the terminal
// sends Ctrl-C to the program and to a wrapper, which passes it on. No user types that fast.
const sameKeystroke = 100 * time.Millisecond

// maxQueuedTrees bounds the trees that SIGUSR1 asked for and that are not printed yet; further ones
// are not printed.
const maxQueuedTrees = 4

// handleSignals acts on the signals of the program until done is closed, as [Service] describes. up
// delivers the tree once it has started; stop asks it to end; ended reports why the program is
// about to exit. It closes each channel that turns delivers, which shows that it takes its turns. A
// signal that was ignored when the program began (nohup(1), a shell's background job) stays ignored.
func handleSignals(con console, up <-chan *Runtime, done <-chan struct{}, stop func(), ended func(error), turns <-chan chan<- struct{}) {
	handled := []os.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGHUP, sigTTIN, sigTTOU, sigUSR1, sigUSR2}
	signals := make(chan os.Signal, len(handled))
	for _, sig := range handled {
		if sig == syscall.SIGTERM || !signal.Ignored(sig) {
			signal.Notify(signals, sig)
		}
	}
	prints := queue.New(queue.Config[Tree]{ // standard error may be stuck
		Max: maxQueuedTrees, Take: con.tree,
	})
	var stopped time.Time   // when it was asked to end
	var first os.Signal     // the signal that asked for it
	var rt *Runtime         // nil until the tree is up
	var waiting []os.Signal // signals that wait for it
	// One waiting reload serves all requests that arrive while it waits: it uses the program and
	// the configuration of the time when it begins.
	reloads := make(chan *Runtime, 1)
	defer close(reloads)
	go func() { // ends with handleSignals and the reload that is under way
		for rt := range reloads {
			_ = rt.Reload(context.Background()) // bounded by the tree's end; an error is in the log
		}
	}()
	act := func(sig os.Signal) {
		ends := sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGQUIT
		if sig == syscall.SIGQUIT {
			go con.line(stacks.Text()) // ends when it has printed, or with the program
		}
		switch {
		case ends && stopped.IsZero():
			stopped, first = time.Now(), sig
			stop()
		case sig == syscall.SIGTERM && time.Since(stopped) < sameStopSignal, sig == first && time.Since(stopped) < sameKeystroke:
		case ends:
			killAll()
			err := errors.New("coppice: second signal: killing what is left")
			con.line(err)
			ended(err)
			os.Exit(childproto.ExitFailed)
		case sig == sigTTOU && sentByTerminal():
			// The terminal sent it, not an operator. If it were caught, the terminal would send it
			// for each try to write, without end. If it is ignored, the write succeeds.
			signal.Ignore(sig)
		case sig == sigUSR1 && rt == nil && starting() != nil: // a start that hangs is what it is asked for
			prints.Put(starting().Snapshot())
		case rt == nil:
			if len(waiting) < maxEarlySignals {
				waiting = append(waiting, sig)
			}
		case sig == syscall.SIGHUP:
			select {
			case reloads <- rt:
			default:
			}
		case sig == sigTTIN:
			go rt.scaleBySignal(+1) // ends with the scaling, or the tree
		case sig == sigTTOU:
			go rt.scaleBySignal(-1)
		case sig == sigUSR1:
			prints.Put(rt.Snapshot())
		case sig == sigUSR2:
			rt.log.Warn("SIGUSR2 has no meaning yet: ignored")
		}
	}
	for {
		select {
		case sig := <-signals:
			act(sig)
		case <-done:
			if !stopped.IsZero() { // the same order by another sender does not end a program that is ending
				time.Sleep(sameStopSignal - time.Since(stopped))
			}
			signal.Stop(signals)
			return
		case turned := <-turns:
			close(turned)
		case rt = <-up:
			for _, sig := range waiting {
				act(sig)
			}
		}
	}
}

// starting returns the tree whose start is under way, or nil.
func starting() *Runtime {
	if rt := running.Load(); rt != nil && rt.begun.Load() {
		return rt
	}
	return nil
}

// scaleBySignal gives the only pool, or the first, one worker more or less.
func (rt *Runtime) scaleBySignal(by int) {
	if err := rt.scaleBy(context.Background(), "", by); err != nil {
		rt.log.Error("scale by signal", "by", by, "err", err)
	}
}

// survivePipeSignal makes a write fail when the reader of standard output or error has gone; by
// default the write ends the program (os/signal, SIGPIPE), and a lost log reader must not end a
// tree. Programs that this program starts still have the signal at its default.
func survivePipeSignal() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // no goroutine reads it: the call is enough
}
