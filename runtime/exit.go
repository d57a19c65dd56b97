package coppice

import (
	"fmt"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/supervisor"
)

// Exit describes how a process of the tree ended: the kernel's status, the process's last words,
// and what the master did to it. The exit reason of each process has one, whatever the reason's
// kind:
//
//	if exit, ok := errors.AsType[*coppice.Exit](event.Reason.Cause); ok { … }
//
// So has every error that wraps a reason. A goroutine has none.
type Exit struct {
	PID    int            // another process may have the number by now
	Code   int            // exit code; -1 when a signal ended it
	Signal syscall.Signal // 0 when it exited
	Core   bool           // a core was dumped

	// UserTime, SystemTime and MaxRSS cover the process and the children that it has waited for.
	UserTime, SystemTime time.Duration
	MaxRSS               int64 // bytes, of the largest of them

	// Words is the line in which the process said why it ended, within the last 10 s of its life:
	// "panic: …", "fatal error: …", and the lines of programs in other languages. "" when there was
	// none.
	Words string

	// Killed is why the master killed it; "" when it did not end by a SIGKILL of the master. A
	// worker that is not ready in time may have ended by the SIGABRT that comes first.
	Killed KillReason

	// Steps are what the master did to end it, in order; nil when it did nothing.
	Steps []StopStep

	// OOM is set when the kernel killed it for want of memory, or may have.
	OOM OOM

	// Resources is what its cgroup had used when it ended; nil without Environment.Resources.
	Resources *ResourceUsage

	// Lost is set when the status is not known because other code of this program reaped the
	// process (wait4(-1) does, exec.Cmd.Wait does not).
	Lost error `cbor:"-"`
}

// KillReason is why the master killed a process.
type KillReason string

// The reasons for which the master kills a process.
const (
	KilledNotReady   KillReason = "not ready in time"           // StartTimeout
	KilledUnwanted   KillReason = "no longer wanted"            // stopped while it started, or the start failed after the fork
	KilledStop       KillReason = "not stopped in time"         // Shutdown of its spec
	KilledBrutal     KillReason = "without being asked"         // brutal kill
	KilledEnd        KillReason = "the tree had to end"         // Runtime.Shutdown's deadline, a second signal
	KilledChannel    KillReason = "its channel was lost"        // and it lived on
	KilledHung       KillReason = "it hung"                     // and did not end at SIGABRT
	KilledNotReading KillReason = "it did not read its channel" // and had to be told something
	KilledNoLink     KillReason = "a worker has no link to it"  // the listener process
	KilledBadLinks   KillReason = "its links to the listener process do not hold"
	KilledRequest    KillReason = "a request in it did not end in time" // RequestTimeout.Hard, when the others had their time
	KilledMemory     KillReason = "over its memory limit"               // Recycle.HardMemory
	KilledOperator   KillReason = "by the operator"                     // Runtime.Kill
	KilledCall       KillReason = "a call in it did not end in time"    // package jobs
)

// OOM is the verdict on whether the kernel's out-of-memory killer ended a process: from a SIGKILL
// that the master did not send and from the counters of cgroups. With Resources.MemoryMax the
// kernel counts for the process alone, and the verdict is certain or none.
type OOM string

// The verdicts; "" when no evidence was found, or the counters cannot be read.
const (
	OOMPossible OOM = "possible" // a kill was counted during its life, but in a cgroup that has other processes too
	OOMCertain  OOM = "certain"  // a kill was counted in a cgroup that had only this process
)

// String returns one line: how it ended, what ended it, and its last words.
func (e Exit) String() string {
	var s string
	switch {
	case e.Lost != nil:
		s = fmt.Sprintf("status lost: %v", e.Lost)
	case e.Signal != 0:
		s = fmt.Sprintf("signal %s", signalName(e.Signal))
		if e.Core {
			s += " (core dumped)"
		}
	default:
		s = fmt.Sprintf("exit code %d", e.Code)
	}
	if why := e.why(); why != "" {
		s += ": " + why
	}
	return s
}

// Error returns String, so that an Exit can be found as an error.
func (e *Exit) Error() string { return e.String() }

// Unwrap returns Lost.
func (e *Exit) Unwrap() error { return e.Lost }

// why returns what the line says besides the status.
func (e Exit) why() string {
	var s string
	switch {
	case e.Killed != "":
		s = string(e.Killed)
	case e.OOM == OOMCertain:
		s = "out of memory"
	case e.OOM != "":
		s = "possibly out of memory"
	case e.Words == "" && signalName(e.Signal) == "SIGSYS":
		s = "a system call that a seccomp filter denies"
	}
	if e.Words == "" || e.Killed == KilledNotReady { // the words are about the master's SIGABRT
		return s
	}
	if s != "" {
		s += ": "
	}
	return s + e.Words
}

// killedFor notes why the master killed the process, if the kill ended it. A process that is not
// ready in time may end by its SIGABRT.
func (e *Exit) killedFor(why *atomic.Pointer[KillReason]) {
	if k := why.Load(); k != nil && (e.Signal == syscall.SIGKILL || e.PID == 0 || *k == KilledNotReady) {
		e.Killed = *k
	}
}

// exitOf returns the Exit of the process with that number.
func exitOf(pid int, e process.Exit) Exit {
	return Exit{
		PID: pid, Code: e.Code, Signal: e.Signal, Core: e.Core,
		UserTime: e.UserTime, SystemTime: e.SystemTime, MaxRSS: e.MaxRSS, Lost: e.Lost,
	}
}

// signals is a set of signals.
type signals uint64

func (s signals) with(sig syscall.Signal) signals { return s | 1<<uint(sig) }
func (s signals) has(sig syscall.Signal) bool {
	return sig > 0 && sig < 64 && s&(1<<uint(sig)) != 0
}

// endContext is what the exit reason depends on besides the exit.
type endContext struct {
	stopRequested bool    // to end, before it did
	sent          signals // by the master
	success       []int   // exit codes that are as good as 0
}

// reason returns the exit reason in OTP's words; docs/processes.md has the table. The reason is
// Shutdown for a process that was asked to end and ended with a success code, by a signal that was
// sent to ask it, or with the code that shells make of such a signal.
func (e Exit) reason(by endContext) supervisor.Reason {
	var r supervisor.Reason
	if why := e.why(); e.PID != 0 || why != "" {
		r.Cause = &exitError{e, why}
	}
	switch {
	case e.Lost != nil:
		r.Kind, r.Cause = supervisor.Error, &exitError{e, e.Lost.Error()}
	case e.Killed != "":
		r.Kind = supervisor.Killed
	case by.stopRequested && (by.sent.has(e.Signal) || by.sent.has(syscall.Signal(e.Code-128))):
		r.Kind = supervisor.Shutdown
	case e.Signal != 0:
		r.Kind, r.Signal, r.Core = supervisor.Signaled, int(e.Signal), e.Core
	case e.Code != 0 && !slices.Contains(by.success, e.Code):
		r.Kind, r.Code = supervisor.Exited, e.Code
	case by.stopRequested:
		r.Kind = supervisor.Shutdown
	}
	return r
}

// exitError is the cause in the reason of a process's end: the Exit, without what the reason's
// other fields say.
type exitError struct {
	exit Exit
	text string
}

func (s *exitError) Error() string { return s.text }

func (s *exitError) Unwrap() error {
	if s.exit.PID == 0 {
		return nil // of a goroutine
	}
	return &s.exit
}

// hangError is the cause in the reason of a process that was ended because it hung.
type hangError struct {
	exit Exit
	why  error
}

func (h *hangError) Error() string { return h.why.Error() }

func (h *hangError) Unwrap() []error {
	if h.exit.PID == 0 {
		return []error{h.why}
	}
	return []error{h.why, &h.exit}
}

// agrees reports whether e fits the end of a child whose exit notice is of kind k.
func (e Exit) agrees(k childproto.ExitNoticeKind) bool {
	if e.PID == 0 || e.Lost != nil { // a goroutine, or the status is not known
		return true
	}
	switch k {
	case childproto.NoticeNormal, childproto.NoticeShutdown:
		return e.Signal == 0 && e.Code == childproto.ExitOK
	case childproto.NoticeError, childproto.NoticePanic:
		return e.Signal == 0 && e.Code == childproto.ExitFailed
	case childproto.NoticeUnfit:
		return e.Signal == 0 && e.Code == childproto.ExitUsage
	}
	return false
}
