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

// exitReason returns the exit reason: what the worker said and how it ended, or why the master
// ended it.
func (w *poolWorker) exitReason() supervisor.Reason {
	r := w.statedReason()
	if hung := w.hung.Load(); hung != nil {
		r.Cause = &hangError{w.exit, *hung}
		if r.IsNormal() {
			r.Kind = supervisor.Error
		}
	}
	if broken := w.channelErr.Load(); broken != nil && w.exit.Killed == KilledChannel {
		r.Cause = &exitError{w.exit, fmt.Sprintf("%s: %v", KilledChannel, *broken)}
	}
	return r
}

// statedReason returns the exit reason from what the worker said and how it ended. Its statement
// counts if the end agrees with it.
func (w *poolWorker) statedReason() supervisor.Reason {
	r := w.exit.reason(endContext{w.askedStop.Load(), w.backend.sent(), w.driver.pool.SuccessExit})
	bye := w.exitNotice.Load()
	if bye == nil && w.exit.Code == childproto.ExitCut && w.exit.Signal == 0 && !r.IsNormal() {
		return supervisor.Reason{Kind: supervisor.Error, Cause: &exitError{w.exit, "the channel to the master has ended"}}
	}
	if bye == nil || !w.exit.agrees(bye.Kind) {
		return r
	}
	switch bye.Kind {
	case childproto.NoticeNormal:
		return supervisor.Reason{Kind: supervisor.Normal, Cause: r.Cause}
	case childproto.NoticeShutdown:
		return supervisor.Reason{Kind: supervisor.Shutdown, Cause: r.Cause}
	case childproto.NoticePanic:
		value, stack, _ := strings.Cut(strings.TrimPrefix(bye.Text, childproto.PanicMark), "\n\n")
		return supervisor.Reason{Kind: supervisor.Panic, Value: value, Stack: stack}
	case childproto.NoticeError, childproto.NoticeUnfit:
		return supervisor.Reason{Kind: supervisor.Error, Cause: &exitError{w.exit, bye.Text}}
	}
	return r
}

// endError returns the reason of a worker that has ended where it should not have, as an error.
func (w *poolWorker) endError() error {
	if err := w.reason.Err(); err != nil {
		return err
	}
	return errors.New(w.reason.String())
}

// outsideSignals are the signals by which something outside the tree ends a process.
var outsideSignals = []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT}

// killedFromOutside reports whether something outside the tree has ended the worker.
func (w *poolWorker) killedFromOutside() bool {
	return slices.Contains(outsideSignals, w.exit.Signal) && w.exit.Killed == "" && w.hung.Load() == nil && !w.backend.sent().has(w.exit.Signal)
}
