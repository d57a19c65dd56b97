package coppice

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
)

// slowStart is how long a start may take before the log says what it waits for; half of its
// StartTimeout, if that is less.
const slowStart = 5 * time.Second

// afterSlowStart calls say once if a start within limit is slow, unless stop is called before.
func afterSlowStart(limit time.Duration, say func(after time.Duration)) (stop func()) {
	d := min(slowStart, limit/2)
	t := time.AfterFunc(d, func() { say(d) })
	return func() { t.Stop() }
}

// warnIfSlow warns once if what takes long within limit, because of what is missing.
func warnIfSlow(log *slog.Logger, limit time.Duration, what, missing string, args ...any) (stop func()) {
	return afterSlowStart(limit, func(d time.Duration) {
		log.Warn(fmt.Sprintf("%s takes long: after %v %s", what, d, missing), args...)
	})
}

// unlimited is the limit of what has none.
const unlimited = 2 * slowStart

// unready is how far a worker that is not ready has come.
type unready struct {
	entry    string        // the function of this package by which its program becomes part of the tree
	inTree   bool          // it has come to that call
	worker   bool          // it runs a worker function; false = it is the listener process
	prepares bool          // Pool.Prepare comes before the worker function
	spare    bool          // Pool.Prepare has not returned
	limit    time.Duration // its StartTimeout
	program  bool          // it is another program, whose sign is
	sign     Ready
}

// subject returns what the program is called in a sentence.
func (u unready) subject() string {
	if u.inTree {
		return "it"
	}
	return "this program, started again as a child,"
}

// before returns what the worker has not come to, behind "before".
func (u unready) before() string {
	switch {
	case !u.inTree:
		return "before coppice." + u.entry
	case !u.worker:
		return "before it was ready"
	case u.program:
		return fmt.Sprintf("before it was ready (%v)", u.sign)
	}
	return "before it was ready (Worker.Ready or Worker.Serve)"
}

// missing says what the worker has not done yet.
func (u unready) missing() string {
	switch {
	case !u.inTree:
		return u.subject() + " has not called coppice." + u.entry
	case !u.worker:
		return "it is not ready"
	case u.program:
		return fmt.Sprintf("it has not shown that it is ready (%v)", u.sign)
	case u.spare:
		return "Pool.Prepare has not returned"
	case u.prepares:
		return "Pool.Prepare has not returned, or Worker.Ready or Worker.Serve was not called"
	}
	return "it has called neither Worker.Ready nor Worker.Serve"
}

// hint returns what to do about a start that hangs.
func (u unready) hint() string {
	switch {
	case !u.inTree:
		return "each child runs main too: let it get to coppice." + u.entry + ", and do the work of a worker in its function"
	case !u.worker:
		return "the machine is overloaded, or a function of a listener of this program blocks"
	case u.program:
		return "look at what it prints, and whether it gives the sign that Pool.Ready names"
	}
	return "serve with Worker.Serve, which calls Worker.Ready, instead of the server's own Serve or ListenAndServe; a worker without a server calls Worker.Ready"
}

// ended says how a worker that has ended did so, or why the master ended it.
func (u unready) ended(end workerEnd, r supervisor.Reason) string {
	switch panicked := strings.HasPrefix(end.exit.Words, "panic: "); {
	case end.exit.Killed == KilledNotReady:
		return fmt.Sprintf("%s within %v", u.missing(), u.limit)
	case r.Kind == supervisor.Exited && panicked:
		return fmt.Sprintf("%s panicked %s: %s", u.subject(), u.before(), strings.TrimPrefix(end.exit.Words, "panic: "))
	case r.Kind == supervisor.Panic:
		return fmt.Sprintf("%s panicked %s: %v", u.subject(), u.before(), r.Value)
	case r.Kind == supervisor.Exited:
		return fmt.Sprintf("%s exited with %d %s", u.subject(), r.Code, u.before())
	case r.Kind == supervisor.Signaled:
		return fmt.Sprintf("%s was ended by %s %s", u.subject(), signalName(end.exit.Signal), u.before())
	case r.Kind == supervisor.Error && end.notice != nil && end.notice.Kind == childproto.NoticeError && u.program:
		return strings.TrimPrefix(end.notice.Text, "coppice: ")
	case r.Kind == supervisor.Error && end.notice != nil && end.notice.Kind == childproto.NoticeError:
		return "the worker function returned an error: " + strings.TrimPrefix(end.notice.Text, "coppice: ")
	case r.Kind == supervisor.Error && r.Cause != nil:
		return withoutPrefix(r.Cause)
	case r.IsNormal() && !u.inTree:
		return u.subject() + " returned from main " + u.before()
	case r.IsNormal() && end.notice != nil:
		return "the worker function returned nil " + u.before()
	case r.IsNormal():
		return "it exited with 0 " + u.before()
	}
	return r.String()
}

// reason returns the exit reason of a worker that has ended, with what it had not come to.
func (u unready) reason(end workerEnd, r supervisor.Reason) supervisor.Reason {
	switch {
	case r.IsNormal():
		return supervisor.Reason{Kind: supervisor.Error, Cause: &exitError{end.exit, u.ended(end, r)}}
	case r.Kind == supervisor.Exited, r.Kind == supervisor.Signaled:
		text := u.before()
		if why := end.exit.why(); why != "" {
			text += ": " + why
		}
		r.Cause = &exitError{end.exit, text}
	}
	return r
}
