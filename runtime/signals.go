package coppice

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/image"
	"github.com/coppice-go/coppice/runtime/internal/signalrules"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
)

// handled are the signals of the program that have a meaning.
var handled = [signalrules.Count]os.Signal{
	signalrules.Terminate: syscall.SIGTERM, signalrules.Interrupt: syscall.SIGINT, signalrules.Quit: syscall.SIGQUIT, signalrules.Hangup: syscall.SIGHUP,
	signalrules.More: sigTTIN, signalrules.Fewer: sigTTOU, signalrules.User1: sigUSR1, signalrules.User2: sigUSR2,
}

// signalInbox has the signals that have come, each kind in a channel of its own: a flood of one
// kind loses signals of that kind alone.
type signalInbox [signalrules.Count]chan os.Signal

// newSignalInbox begins to take the signals of the program. A signal that was ignored when the
// program began (nohup(1), a shell's background job) stays ignored. SIGTTOU is ignored from the
// start if the terminal would send it for each write: it goes to the whole process group, and would
// stop a child that is between fork and exec, where nothing catches it.
func newSignalInbox() signalInbox {
	var in signalInbox
	for kind, sig := range handled {
		room := 1 // more of them mean the same
		if k := signalrules.Signal(kind); k == signalrules.More || k == signalrules.Fewer {
			room = signalrules.Gathered + 1
		}
		in[kind] = make(chan os.Signal, room)
		if signalrules.Signal(kind) == signalrules.Fewer && sentByTerminal(signalrules.Fewer) {
			signal.Ignore(sig)
		}
		if sig == syscall.SIGTERM || !signal.Ignored(sig) {
			signal.Notify(in[kind], sig)
		}
	}
	for _, sig := range image.TakeSignals() { // that came during an upgrade
		if kind := slices.Index(handled[:], sig); kind >= 0 {
			offer(in[kind], sig)
		}
	}
	return in
}

// stops reports whether a signal that asks for the end has come and is not handled yet. It waits
// until the handling of those that have come before has had its turn, which handleSignals takes.
func (in signalInbox) stops(turns chan<- chan<- struct{}) bool {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGTERM) // any that is taken already
	signal.Stop(ch)                    // when all that have come are delivered
	turned := make(chan struct{})
	turns <- turned // it always takes its turns soon
	<-turned
	return len(in[signalrules.Terminate])+len(in[signalrules.Interrupt]) > 0
}

// close stops taking signals.
func (in signalInbox) close() {
	for _, ch := range in {
		signal.Stop(ch)
	}
}

// signalActions perform what package signalrules decides. Nothing that they do waits: what may take
// time has a goroutine and room for one request, which serves all that come meanwhile.
type signalActions struct {
	console
	log     *slog.Logger
	stop    func()      // asks the tree to end
	ended   func(error) // reports why the program is about to exit
	last    *sync.Mutex // of what ends the program
	rt      *Runtime    // nil until the tree is up
	tick    *time.Timer
	reloads chan *Runtime // capacity 1; a reload uses the configuration of the time when it begins
	trees   chan *Runtime // capacity 1; standard error may be stuck
	scales  chan int      // capacity 1
}

// handleSignals acts on the signals of the program until done is closed, as [Service] describes,
// and closes the inbox. up delivers the tree once it has started; stop asks it to end; ended
// reports why the program is about to exit, which it does with last locked. It closes each channel
// that turns delivers, which shows that it takes its turns.
func handleSignals(in signalInbox, cfg Config, con console, up <-chan *Runtime, done <-chan struct{}, stop func(), ended func(error), last *sync.Mutex, turns <-chan chan<- struct{}) {
	defer in.close()
	rules := signalrules.New(signalrules.Config{
		Echo: cfg.Service.signalEcho(), Terminal: sentByTerminal, Starting: func() bool { return starting() != nil },
	})
	do := signalActions{
		console: con, log: cfg.Logger, stop: stop, ended: ended, last: last, tick: time.NewTimer(0),
		reloads: make(chan *Runtime, 1), trees: make(chan *Runtime, 1), scales: make(chan int, 1),
	}
	do.begin()
	defer do.close()
	var over <-chan time.Time // set when Run has returned: an echo must not end the program
	step := func(ev signalrules.Event) {
		for _, e := range rules.Step(time.Now(), ev) {
			if over == nil || e.Kind == signalrules.Ignore {
				do.perform(e)
			}
		}
	}
	got := func(sig signalrules.Signal) { step(signalrules.Event{Kind: signalrules.Got, Signal: sig}) }
	for {
		for _, sig := range []signalrules.Signal{signalrules.Terminate, signalrules.Interrupt, signalrules.Quit} { // before all else
			select {
			case <-in[sig]:
				got(sig)
			default:
			}
		}
		select {
		case <-in[signalrules.Terminate]:
			got(signalrules.Terminate)
		case <-in[signalrules.Interrupt]:
			got(signalrules.Interrupt)
		case <-in[signalrules.Quit]:
			got(signalrules.Quit)
		case <-in[signalrules.Hangup]:
			got(signalrules.Hangup)
		case <-in[signalrules.More]:
			got(signalrules.More)
		case <-in[signalrules.Fewer]:
			got(signalrules.Fewer)
		case <-in[signalrules.User1]:
			got(signalrules.User1)
		case <-in[signalrules.User2]:
			got(signalrules.User2)
		case <-done:
			done, over = nil, time.After(rules.Rest(time.Now()))
		case <-over:
			return
		case turned := <-turns:
			close(turned)
		case do.rt = <-up:
			step(signalrules.Event{Kind: signalrules.Up})
		case <-do.tick.C:
			step(signalrules.Event{Kind: signalrules.Tick})
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

// begin starts the goroutines of what may take time. They end with close, and with what they are
// doing then.
func (do *signalActions) begin() {
	go func() {
		for rt := range do.reloads {
			_ = rt.Reload(context.Background()) // bounded by the tree's end; an error is in the log
		}
	}()
	go func() {
		for rt := range do.trees {
			_ = do.tree(rt.Snapshot()) // there is nothing to print an error to
		}
	}()
	go func() {
		for by := range do.scales {
			do.rt.scaleBySignal(by)
		}
	}()
}

func (do *signalActions) close() {
	do.tick.Stop()
	close(do.reloads)
	close(do.trees)
	close(do.scales)
}

func (do *signalActions) perform(e signalrules.Effect) {
	switch e.Kind {
	case signalrules.Stop:
		do.stop()
	case signalrules.Kill:
		if !do.last.TryLock() {
			return // the tree has ended meanwhile
		}
		killAll()
		err := errors.New("coppice: second signal: killing what is left")
		do.line(err)
		do.ended(err)
		os.Exit(childproto.ExitFailed)
	case signalrules.PrintStacks:
		go do.line(stacks.Text()) // ends when it has printed, or with the program
	case signalrules.Reload:
		offer(do.reloads, do.rt)
	case signalrules.PrintTree:
		if rt := cmp.Or(do.rt, starting()); rt != nil {
			offer(do.trees, rt)
		}
	case signalrules.Scale:
		by := e.By
		select {
		case waiting := <-do.scales:
			by = min(max(by+waiting, -signalrules.Gathered), signalrules.Gathered)
		default:
		}
		do.scales <- by // there is room: no other goroutine sends
	case signalrules.Ignore:
		signal.Ignore(handled[e.Signal])
		if e.Signal == signalrules.More {
			do.log.Warn("the program reads its terminal as a background job: its reads fail, and "+e.Signal.String()+" is ignored from now on", "hint", "bring it to the foreground, or give it another standard input")
		}
	case signalrules.Upgrade:
		if do.rt.upgrades.Load() == 0 { // one waits at most
			go func() { _ = do.rt.Upgrade(context.Background()) }() // an error is in the log
		}
	case signalrules.Wake:
		do.tick.Reset(e.In)
	}
}

// offer sends v if there is room.
func offer[T any](ch chan<- T, v T) {
	select {
	case ch <- v:
	default:
	}
}

// scaleBySignal gives the only pool, or the first, by workers more.
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
