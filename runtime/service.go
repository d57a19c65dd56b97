package coppice

import (
	"cmp"
	"time"

	"github.com/coppice-go/coppice/netactor/registry"
)

// A Service is what [Run] does for the program as a service of the system. The zero value leaves
// all of it to the program, as [Start] does.
type Service struct {
	// With Signals, Run handles the program's signals until it returns:
	//
	//	SIGTERM, SIGINT  shut down in order, and return; a second signal kills what still runs and
	//	                 exits with 1, unless it comes within SignalEcho of the first
	//	SIGQUIT          print the stacks of the master's goroutines, and shut down like SIGTERM; as
	//	                 the second signal it kills at once
	//	SIGHUP           reload (Runtime.Reload); a SIGHUP during a reload waits
	//	SIGTTIN, SIGTTOU one worker more, or less, in the only pool, or the first of several
	//	                 (Runtime.Scale); those of 0.1 s are one change, by 16 at most
	//	SIGUSR1          print the tree to standard error
	//	SIGPIPE          ignored, also after Run: when the reader of standard output or error has
	//	                 gone, lines are lost
	//	SIGUSR2          Upgrade
	//	others           as Go handles them: SIGABRT ends the program with a dump; the children
	//	                 drain as orphans
	//
	// Signals that concern a running tree wait until it is up. However many signals of one kind
	// come, those of other kinds are heard, those that end the program first. SIGTTIN and SIGTTOU
	// also are what the terminal sends to a background job that reads from it, or writes to it
	// (stty tostop): the signal is ignored from then on, so that the read fails, and the output
	// appears. After Run the program has its signals back, except for those within SignalEcho of
	// the first that asked it to end.
	//
	// Children lead their own process groups, so that a terminal's signals reach only the master. A
	// signal to all processes (systemd's KillMode=control-group, pkill) has the same effect as a
	// signal to the master alone, in whatever order it arrives: children report a request to end to
	// the master, and ignore the rest. An operator's SIGTERM to a worker replaces it, without a gap
	// and without counting as a failure; a worker that is not Permanent drains and is not replaced.
	Signals bool

	// SignalEcho is how long after the first signal that ends the program a further SIGTERM or
	// SIGINT is taken for the same order, and not for "now": timeout(1), npm, a service manager or
	// Ctrl-C with a wrapper in front send one order as two signals. Zero = 1 s, None = no time. The
	// same holds for a SIGQUIT after a SIGQUIT; after another signal SIGQUIT is never an echo.
	SignalEcho time.Duration

	// With Notify, Run notifies systemd of the tree's state, if systemd started the program and set
	// NOTIFY_SOCKET (sd_notify(3)), and keeps the tree's sockets in systemd's descriptor store, if
	// FDSTORE says that there is one; see docs/systemd.md.
	Notify bool
}

// signalEcho returns s.SignalEcho, or its default.
func (s Service) signalEcho() time.Duration { return max(0, cmp.Or(s.SignalEcho, time.Second)) }

// descriptorStore is systemd's store of the descriptors that outlive the program.
type descriptorStore interface {
	registry.Store
	Rest() (names []string) // closes what was not taken
}
