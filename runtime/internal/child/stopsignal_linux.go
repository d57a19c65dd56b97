package child

import (
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
)

// A child is told to end by its master alone, over the channel. A signal that says so
// comes from elsewhere: a service manager that sends it to every process of the service,
// pkill, an operator who means this child. The child passes it on, and the master decides:
// it may have got the signal too, or be about to.

// stopSignals are the signals that tell a child to end.
var stopSignals = make(chan os.Signal, 4)

// connectedChildren takes the child that this process is, once it can talk to its master.
var connectedChildren = make(chan connectedChild, 1)

type connectedChild struct {
	*Session
	conn *fdipc.Conn
}

// masterSignals are signals that mean something to a master and would end a child.
var masterSignals = []os.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2}

func init() { // early: until then a signal ends the process
	if _, child := fdipc.InheritedVar(childproto.FilesVar); !child { // IsChild would take the channel
		return
	}
	signal.Notify(stopSignals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	signal.Notify(make(chan os.Signal, 1), masterSignals...) // nobody reads it; ignored, they would be so in what the child starts
	signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU)          // caught, they come for each try to read or write, without end
	go forwardStopSignals(os.Getppid())                      // ends with the process
}

// forwardStopSignals passes on what tells this process to end. master is its parent.
func forwardStopSignals(master int) {
	var s connectedChild
	var waiting []os.Signal // for s
	for {
		select {
		case s = <-connectedChildren:
			for _, sig := range waiting {
				s.forwardStopSignal(sig)
			}
		case sig := <-stopSignals:
			orphan := os.Getppid() != master // the signal of the parent's death, most likely
			switch {
			case orphan && s.Session == nil:
				os.Exit(childproto.ExitFailed) // before it could do anything
			case orphan:
				s.beginDrain(errOrphan, s.cfg.OrphanDrain, 0)
			case s.Session == nil:
				if len(waiting) < cap(stopSignals) {
					waiting = append(waiting, sig)
				}
			default:
				s.forwardStopSignal(sig)
			}
		}
	}
}

// forwardStopSignal tells the master of a signal to end. A master that has died is noticed by the end
// of the channel; one that does not read cannot decide.
func (s connectedChild) forwardStopSignal(sig os.Signal) {
	name := sig.String()
	if number, ok := sig.(syscall.Signal); ok {
		name = unix.SignalName(number)
	}
	if sig == syscall.SIGQUIT {
		go stacks.Print() // ends by itself, or with the process
	}
	if err := s.conn.TrySend(childproto.NewFrame(childproto.FrameStopSignal, childproto.StopSignalFrame{Signal: name})); err != nil {
		s.log.Warn("the master does not hear of a signal to end", "signal", name, "err", err)
		if s.AwaitEquipped(s.ctx) {
			s.beginDrain(errStopRequested, s.identity.Drain, s.identity.Drain/childproto.IdleShare)
		}
	}
}
