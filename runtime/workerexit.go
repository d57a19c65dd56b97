package coppice

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
)

// workerEnd is what is known of the end of a worker: how it ended, what it said of that, and why
// the master ended it.
type workerEnd struct {
	exit   Exit
	by     endContext
	notice *childproto.ExitNotice // what the worker said; nil = nothing
	hung   error                  // why it was ended, if it hung
	broken error                  // what ended its channel, if not the worker
}

// reason returns the exit reason.
func (e workerEnd) reason() supervisor.Reason {
	r := e.statedReason()
	if e.hung != nil {
		r.Cause = &hangError{e.exit, e.hung}
		if r.IsNormal() {
			r.Kind = supervisor.Error
		}
	}
	if e.broken != nil && e.exit.Killed == KilledChannel {
		r.Cause = &exitError{e.exit, fmt.Sprintf("%s: %v", KilledChannel, e.broken)}
	}
	return r
}

// statedReason returns the exit reason from what the worker said and how it ended. Its statement
// counts if the end agrees with it.
func (e workerEnd) statedReason() supervisor.Reason {
	r := e.exit.reason(e.by)
	if e.notice == nil && e.exit.Code == childproto.ExitCut && e.exit.Signal == 0 && !r.IsNormal() {
		return supervisor.Reason{Kind: supervisor.Error, Cause: &exitError{e.exit, "the channel to the master has ended"}}
	}
	if e.notice == nil || !e.exit.agrees(e.notice.Kind) {
		return r
	}
	switch e.notice.Kind {
	case childproto.NoticeNormal:
		return supervisor.Reason{Kind: supervisor.Normal, Cause: r.Cause}
	case childproto.NoticeShutdown:
		return supervisor.Reason{Kind: supervisor.Shutdown, Cause: r.Cause}
	case childproto.NoticePanic:
		value, stack, _ := strings.Cut(strings.TrimPrefix(e.notice.Text, childproto.PanicMark), "\n\n")
		return supervisor.Reason{Kind: supervisor.Panic, Value: value, Stack: stack}
	case childproto.NoticeError, childproto.NoticeUnfit:
		return supervisor.Reason{Kind: supervisor.Error, Cause: &exitError{e.exit, e.notice.Text}}
	}
	return r
}

// outsideSignals are the signals by which something outside the tree ends a process.
var outsideSignals = []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT}

// fromOutside reports whether something outside the tree has ended the worker.
func (e workerEnd) fromOutside() bool {
	return slices.Contains(outsideSignals, e.exit.Signal) && e.exit.Killed == "" && e.hung == nil && !e.by.sent.has(e.exit.Signal)
}

// misfit reports whether the worker could not be a child of the tree; see errMisfit. begun means
// that it had called Main.
func (e workerEnd) misfit(begun bool) bool {
	if e.notice != nil {
		return e.notice.Kind == childproto.NoticeUnfit && e.exit.agrees(e.notice.Kind)
	}
	return !begun && e.exit.PID != 0 && e.exit.Killed == "" && e.exit.Lost == nil && !e.fromOutside()
}

// endError returns the reason of a worker that has ended where it should not have, as an error.
func endError(r supervisor.Reason) error {
	if err := r.Err(); err != nil {
		return err
	}
	return errors.New(r.String())
}
