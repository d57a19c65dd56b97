package coppice

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/supervisor"
)

// Exit is how a process ended, as the kernel told it.
type Exit struct {
	PID    int
	Code   int            // exit code; -1 when a signal ended it
	Signal syscall.Signal // 0 when it exited
	Core   bool           // a core was dumped

	UserTime, SystemTime time.Duration
	MaxRSS               int64 // bytes

	// Words is the newest line in which the process said why it ended, as Go's
	// runtime does: "panic: …", "fatal error: …". "" when it said nothing.
	Words string

	// Lost is set when the status could not be had, because other code of this
	// program reaped the process (wait4(-1) steals, exec.Cmd.Wait does not).
	Lost error
}

// String is one line: how it ended, and its own words.
func (e Exit) String() string {
	var s string
	switch {
	case e.Lost != nil:
		s = fmt.Sprintf("status lost: %v", e.Lost)
	case e.Signal != 0:
		s = fmt.Sprintf("signal %s", unix.SignalName(e.Signal))
		if e.Core {
			s += " (core dumped)"
		}
	default:
		s = fmt.Sprintf("exit code %d", e.Code)
	}
	if e.Words != "" {
		s += ": " + e.Words
	}
	return s
}

// isLastWords tells whether line is how Go's runtime begins to say why it ends
// the program.
func isLastWords(line string) bool {
	for _, p := range []string{"panic: ", "fatal error: ", "fatal: ", "unexpected fault address "} {
		if strings.HasPrefix(line, p) {
			return true
		}
	}
	return false
}

// exitOf is what the kernel said of the process with that number.
func exitOf(pid int, e process.Exit) Exit {
	return Exit{
		PID: pid, Code: e.Code, Signal: e.Signal, Core: e.Core,
		UserTime: e.UserTime, SystemTime: e.SystemTime, MaxRSS: e.MaxRSS, Lost: e.Lost,
	}
}

// reason is the exit reason in OTP's words. asked tells whether somebody asked
// the process to end: then 0, and the signals that asking uses, are a shutdown.
func (e Exit) reason(asked bool) supervisor.Reason {
	var cause error
	if e.Words != "" {
		cause = errors.New(e.Words)
	}
	switch {
	case e.Lost != nil:
		return supervisor.Reason{Kind: supervisor.Error, Cause: e.Lost}
	case asked && (e.Code == 0 || e.Signal == syscall.SIGTERM):
		return supervisor.Reason{Kind: supervisor.Shutdown}
	case e.Signal != 0:
		return supervisor.Reason{Kind: supervisor.Signaled, Signal: int(e.Signal), Core: e.Core, Cause: cause}
	case e.Code != 0:
		return supervisor.Reason{Kind: supervisor.Exited, Code: e.Code, Cause: cause}
	}
	return supervisor.Reason{Kind: supervisor.Normal}
}
