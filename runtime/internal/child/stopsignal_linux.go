package child

import (
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
)

// The master asks a child to end over the channel only. A signal to end comes from elsewhere: from
// a service manager that signals every process of the service, from pkill, or from an operator who
// wants this child to end. The child passes the signal on, and the master decides: the master may
// have got the signal too, or be about to.

// stopSignals receives the signals that ask a child to end.
var stopSignals = make(chan os.Signal, 4)

// connectedChildren receives this process's Session once it has a channel to the master.
var connectedChildren = make(chan connectedChild, 1)

type connectedChild struct {
	*Session
	conn *fdipc.Conn
}

// masterSignals are signals that a master uses and that would end a child.
var masterSignals = []os.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}

func init() { // early: until then a signal ends the process
	if _, child := fdipc.InheritedVar(childproto.FilesVar); !child { // not IsChild, which would take the channel
		return
	}
	signal.Notify(stopSignals, syscall.SIGTERM, syscall.SIGINT)
	if os.Getenv("GOTRACEBACK") != "crash" { // a crash passes SIGQUIT from thread to thread, and takes 10 s if it is caught
		signal.Notify(stopSignals, syscall.SIGQUIT)
	}
	signal.Notify(make(chan os.Signal, 1), masterSignals...) // never read; not ignored, because the child's children would inherit that
	signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU)          // not caught, because they would come again for each read or write
	go forwardStopSignals(os.Getppid())                      // ends with the process
}

// forwardStopSignals passes signals to end on to the master. master is the PID of this process's
// parent.
func forwardStopSignals(master int) {
	var s connectedChild
	var first os.Signal // the master acts on the first one alone; nil before it
	passedOn := false
	for {
		select {
		case s = <-connectedChildren:
		case sig := <-stopSignals:
			orphan := os.Getppid() != master // most likely the signal of the parent's death
			switch {
			case orphan && s.Session == nil:
				os.Exit(childproto.ExitFailed) // the child has not begun
			case orphan:
				s.beginDrain(errOrphan, time.Duration(s.orphanDrain.Load()), 0)
				continue
			case first == nil:
				first = sig
			}
			if sig == syscall.SIGQUIT {
				go stacks.Print() // ends when printed, or with the process
			}
		}
		if first != nil && !passedOn && s.Session != nil {
			passedOn = true
			s.forwardStopSignal(first)
		}
	}
}

// forwardStopSignal passes a signal to end on to the master. If the master has died, the channel
// ends. If the master does not read, the child drains at once.
func (s connectedChild) forwardStopSignal(sig os.Signal) {
	name := sig.String()
	if number, ok := sig.(syscall.Signal); ok {
		name = unix.SignalName(number)
	}
	if err := s.conn.TrySend(childproto.NewFrame(childproto.FrameStopSignal, childproto.StopSignalFrame{Signal: name})); err != nil {
		s.log.Warn("cannot pass a signal to end on to the master", "signal", name, "err", err)
		if s.AwaitEquipped(s.ctx) {
			s.beginDrain(errStopRequested, s.identity.Drain, s.identity.Drain/childproto.IdleShare)
		}
	}
}
