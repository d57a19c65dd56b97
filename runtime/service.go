package coppice

// A Service is what [Run] does for the program as a service of the system. The zero value leaves
// all of it to the program, as [Start] does.
type Service struct {
	// With Signals, Run handles the program's signals until it returns:
	//
	//	SIGTERM, SIGINT  shut down in order, and return; the second signal kills what still runs and
	//	                 exits with 1, except a SIGTERM within 1 s of the first, or the first again
	//	                 within 0.1 s: these are the same order by another sender
	//	SIGQUIT          print the stacks of the master's goroutines, and shut down like SIGTERM
	//	SIGHUP           reload (Runtime.Reload); a SIGHUP during a reload waits
	//	SIGTTIN, SIGTTOU one worker more, or less, in the only pool, or the first of several
	//	                 (Runtime.Scale)
	//	SIGUSR1          print the tree to standard error
	//	SIGPIPE          ignored, also after Run: when the reader of standard output or error has
	//	                 gone, lines are lost
	//	SIGUSR2          reserved: ignored, with a line in the log
	//	others           as Go handles them: SIGABRT ends the program with a dump; the children
	//	                 drain as orphans
	//
	// Signals that concern a running tree wait until it is up. A SIGTTOU that the terminal sends to
	// a background job that writes to it (stty tostop) is ignored from then on, and the output
	// appears. After Run the program has its signals back, except for those within 1 s of the first
	// that asked it to end.
	//
	// Children lead their own process groups, so that a terminal's signals reach only the master. A
	// signal to all processes (systemd's KillMode=control-group, pkill) has the same effect as a
	// signal to the master alone, in whatever order it arrives: children report a request to end to
	// the master, and ignore the rest. An operator's SIGTERM to a worker replaces it, without a gap
	// and without counting as a failure; a worker that is not Permanent drains and is not replaced.
	Signals bool

	// With Notify, Run notifies systemd of the tree's state, if systemd started the program and set
	// NOTIFY_SOCKET (sd_notify(3)); see docs/systemd.md.
	Notify bool
}
