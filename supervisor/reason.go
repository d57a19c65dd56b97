package supervisor

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// ReasonKind is how a child ended.
type ReasonKind uint8

// The kinds of [Reason], and the fields each uses.
const (
	// Normal is an end without complaint: a function returned nil, an
	// operating system process exited with code 0.
	Normal ReasonKind = iota
	// Shutdown is the end after a stop request.
	Shutdown
	// ShutdownDetail is OTP's {shutdown, Term}: as Shutdown, with Detail.
	ShutdownDetail
	// Killed is the end by force. Cause may say why.
	Killed
	// Panic is a panic that was caught: Value and Stack.
	Panic
	// Error is an end with an error: Cause.
	Error
	// GaveUp is the end of a supervisor over its restart budget: Detail says
	// which limit, Cause what the last straw was. In OTP mode ([Spec.OTP])
	// such a supervisor ends with Shutdown instead.
	GaveUp
	// Exited is an operating system process's exit with a code other than 0: Code.
	Exited
	// Signaled is an operating system process's end by a signal: Signal and Core.
	Signaled
)

// Reason is how a child or a supervisor ended. The zero value is a normal end. Compare kinds, not
// reasons: two reasons with the same Kind lead to the same decisions.
type Reason struct {
	Kind   ReasonKind
	Detail string // ShutdownDetail, GaveUp
	Cause  error  // Error, GaveUp; what is known of a process's end besides, with an empty text if that is nothing
	Value  any    // Panic: what was given to panic
	Stack  string // Panic: the goroutine's stack
	Code   int    // Exited
	Signal int    // Signaled: the signal's number
	Core   bool   // Signaled: memory was dumped
}

// ReasonOf returns the reason for a function that returned err: Normal for
// nil, the reason itself for an error made by [Exit], else Error.
func ReasonOf(err error) Reason {
	if err == nil {
		return Reason{}
	}
	if e, ok := errors.AsType[*ReasonError](err); ok {
		return e.Reason
	}
	return Reason{Kind: Error, Cause: err}
}

// Exit returns an error that makes a function child end with reason r. It is
// how a function ends with ShutdownDetail, and how [Reason.Err] is undone.
func Exit(r Reason) error { return &ReasonError{Reason: r} }

// ReasonError is a Reason as an error. Unwrap gives the reason's Cause, or the
// value of a panic if that was an error.
type ReasonError struct{ Reason Reason }

func (e *ReasonError) Error() string { return e.Reason.String() }

// Unwrap returns the cause, if there is one.
func (e *ReasonError) Unwrap() error {
	if err, ok := e.Reason.Value.(error); ok && e.Reason.Kind == Panic {
		return err
	}
	return e.Reason.Cause
}

// IsNormal reports whether a transient child that ended for this reason stays
// down: Normal, Shutdown and ShutdownDetail.
func (r Reason) IsNormal() bool { return r.Kind <= ShutdownDetail }

// Err returns nil for a normal end and a [*ReasonError] for every other.
func (r Reason) Err() error {
	if r.IsNormal() {
		return nil
	}
	return Exit(r)
}

// String returns the reason on one line, of at most [MaxText] bytes; the stack of a
// panic is left out.
func (r Reason) String() string { return Cut(r.text()) }

func (r Reason) text() string {
	switch r.Kind {
	case ShutdownDetail:
		return "shutdown:" + r.Detail
	case Panic:
		return "panic: " + firstLine(fmt.Sprint(r.Value))
	case Error:
		if r.Cause == nil {
			return "error"
		}
		return "error: " + firstLine(r.Cause.Error())
	case GaveUp:
		s := "gave up"
		if r.Detail != "" {
			s += ": " + r.Detail
		}
		return s + r.causeText()
	case Exited:
		return "exit code " + strconv.Itoa(r.Code) + r.causeText()
	case Signaled:
		s := "signal " + strconv.Itoa(r.Signal) + " (" + syscall.Signal(r.Signal).String()
		if r.Core {
			s += ", core dumped"
		}
		return s + ")" + r.causeText()
	case Killed:
		return "killed" + r.causeText()
	default:
		return r.Kind.String()
	}
}

// causeText returns the cause, behind a colon, or "".
func (r Reason) causeText() string {
	if r.Cause == nil || r.Cause.Error() == "" {
		return ""
	}
	return ": " + firstLine(r.Cause.Error())
}

// String returns the kind's name.
func (k ReasonKind) String() string {
	return name(k, "normal", "shutdown", "shutdown detail", "killed", "panic", "error", "gave up", "exited", "signaled")
}

// class is what the rules need to know.
func (r Reason) class() rules.Class {
	switch r.Kind {
	case Normal:
		return rules.Normal
	case Shutdown:
		return rules.Shutdown
	case ShutdownDetail:
		return rules.ShutdownDetail
	case Killed:
		return rules.Killed
	default:
		return rules.Failed
	}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return Cut(s)
}

// name returns the name of an enum's value.
func name[T ~uint8](v T, names ...string) string {
	if int(v) < len(names) {
		return names[v]
	}
	return fmt.Sprintf("%T(%d)", v, uint8(v))
}
