package coppice

import (
	"context"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// TestWhy: what a child says of its end counts when it ends like that. One that
// said goodbye and then crashed was taken at its word, and a transient one not
// restarted.
func TestWhy(t *testing.T) {
	for _, tt := range []struct {
		name string
		bye  farewellKind
		exit Exit
		want supervisor.ReasonKind
	}{
		{"normal", byeNormal, Exit{PID: 1}, supervisor.Normal},
		{"normal, then a panic", byeNormal, Exit{PID: 1, Code: 2}, supervisor.Exited},
		{"shutdown", byeShutdown, Exit{PID: 1}, supervisor.Shutdown},
		{"shutdown, then a signal", byeShutdown, Exit{PID: 1, Code: -1, Signal: syscall.SIGSEGV}, supervisor.Signaled},
		{"error", byeError, Exit{PID: 1, Code: exitFailed}, supervisor.Error},
		{"error, then another code", byeError, Exit{PID: 1, Code: 7}, supervisor.Exited},
		{"unfit", byeUnfit, Exit{PID: 1, Code: exitUsage}, supervisor.Error},
		{"no such word", "fine", Exit{PID: 1, Code: 3}, supervisor.Exited},
		{"nothing", "", Exit{PID: 1}, supervisor.Normal},
		{"error of a goroutine", byeError, Exit{}, supervisor.Error},
		{"panic of a goroutine", byePanic, Exit{Code: 2}, supervisor.Panic},
		{"a code that counts as success", "", Exit{PID: 1, Code: exitCut}, supervisor.Normal},
		{"status stolen", byeShutdown, Exit{PID: 1, Lost: errors.New("waitid")}, supervisor.Shutdown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &peer{exit: tt.exit, body: &goroutineBody{}, success: []int{exitCut}}
			if tt.bye != "" {
				p.bye.Store(&farewell{Kind: tt.bye, Text: "words"})
			}
			if got := p.why(); got.Kind != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// TestDeathBeatsItsSigns: when a channel breaks, the child's end is known a moment later:
// that is the reason of a failed start, and not the channel. Where it does not end, and
// where the error is no sign of an end, the error is the reason.
func TestDeathBeatsItsSigns(t *testing.T) {
	for _, tt := range []struct {
		name string
		met  error
		dies time.Duration // after that; 0: never
		want string
	}{
		{"peer lost", fdipc.ErrPeerLost, deathKnown / 2, "signal 11"},
		{"closed", fdipc.ErrClosed, deathKnown / 2, "signal 11"},
		{"end of the channel", io.EOF, deathKnown / 2, "signal 11"},
		{"broken pipe", syscall.EPIPE, deathKnown / 2, "signal 11"},
		{"lives on", fdipc.ErrPeerLost, 0, "peer lost"},
		{"nobody waits for it", context.Canceled, deathKnown / 2, "context canceled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &peer{done: make(chan struct{})}
				p.place.Store(&place{name: "web/0"})
				if tt.dies > 0 {
					time.AfterFunc(tt.dies, func() {
						p.reason = supervisor.Reason{Kind: supervisor.Signaled, Signal: 11}
						close(p.done)
					})
				}
				if err := p.beforeReady(tt.met); !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v, want %s", err, tt.want)
				}
				time.Sleep(deathKnown) // the timer is done, too
			})
		})
	}
}
