package coppice

import (
	"context"
	"errors"
	"io"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
)

// TestWhy: what a child reports of its end counts if the end agrees with it. Before, a child that
// sent its exit notice and then crashed was believed, and a transient child was not restarted.
func TestWhy(t *testing.T) {
	for _, tt := range []struct {
		name   string
		notice childproto.ExitNoticeKind
		exit   Exit
		want   supervisor.ReasonKind
	}{
		{"normal", childproto.NoticeNormal, Exit{PID: 1}, supervisor.Normal},
		{"normal, then a panic", childproto.NoticeNormal, Exit{PID: 1, Code: 2}, supervisor.Exited},
		{"shutdown", childproto.NoticeShutdown, Exit{PID: 1}, supervisor.Shutdown},
		{"shutdown, then a signal", childproto.NoticeShutdown, Exit{PID: 1, Code: -1, Signal: syscall.SIGSEGV}, supervisor.Signaled},
		{"error", childproto.NoticeError, Exit{PID: 1, Code: childproto.ExitFailed}, supervisor.Error},
		{"error, then another code", childproto.NoticeError, Exit{PID: 1, Code: 7}, supervisor.Exited},
		{"unfit", childproto.NoticeUnfit, Exit{PID: 1, Code: childproto.ExitUsage}, supervisor.Error},
		{"no such word", "fine", Exit{PID: 1, Code: 3}, supervisor.Exited},
		{"nothing", "", Exit{PID: 1}, supervisor.Normal},
		{"error of a goroutine", childproto.NoticeError, Exit{}, supervisor.Error},
		{"panic of a goroutine", childproto.NoticePanic, Exit{Code: 2}, supervisor.Panic},
		{"a code that counts as success", "", Exit{PID: 1, Code: childproto.ExitCut}, supervisor.Normal},
		{"status stolen", childproto.NoticeShutdown, Exit{PID: 1, Lost: errors.New("waitid")}, supervisor.Shutdown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := workerEnd{exit: tt.exit, by: endContext{success: []int{childproto.ExitCut}}}
			if tt.notice != "" {
				e.notice = &childproto.ExitNotice{Kind: tt.notice, Text: "words"}
			}
			if got := e.reason(); got.Kind != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// TestDeathBeatsItsSigns: when a channel breaks, the worker's end is known a moment later: that end
// is the reason of a failed start, and not the channel. If the worker does not end, or the error is
// no sign of an end, the error is the reason.
func TestDeathBeatsItsSigns(t *testing.T) {
	for _, tt := range []struct {
		name string
		met  error
		dies time.Duration // after that; 0: never
		want bool
	}{
		{"peer lost", fdipc.ErrPeerLost, deathKnownTimeout / 2, true},
		{"closed", fdipc.ErrClosed, deathKnownTimeout / 2, true},
		{"end of the channel", io.EOF, deathKnownTimeout / 2, true},
		{"broken pipe", syscall.EPIPE, deathKnownTimeout / 2, true},
		{"lives on", fdipc.ErrPeerLost, 0, false},
		{"no sign of an end", context.Canceled, deathKnownTimeout / 2, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ended := make(chan struct{})
				w := &poolWorker{workerStop: workerStop{backend: &goroutineChild{ended: ended}}}
				if tt.dies > 0 {
					time.AfterFunc(tt.dies, func() { close(ended) })
				}
				if got := w.exitedAfter(tt.met); got != tt.want {
					t.Errorf("it has ended: %v, want %v", got, tt.want)
				}
				time.Sleep(deathKnownTimeout) // the timer is done, too
			})
		})
	}
}
