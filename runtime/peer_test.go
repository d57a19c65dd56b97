package coppice

import (
	"errors"
	"syscall"
	"testing"

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
		{"status stolen", byeShutdown, Exit{PID: 1, Lost: errors.New("waitid")}, supervisor.Shutdown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := &peer{exit: tt.exit, body: &goroutineBody{}}
			if tt.bye != "" {
				p.bye.Store(&farewell{Kind: tt.bye, Text: "words"})
			}
			if got := p.why(); got.Kind != tt.want {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}
