package coppice

import (
	"errors"
	"reflect"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/supervisor"
)

// TestReasonTable is the table in docs/processes.md: the reason of each end, and the ends after
// which a transient child stays down.
func TestReasonTable(t *testing.T) {
	term := signals(0).with(syscall.SIGTERM)
	both := term.with(syscall.SIGKILL)
	code := func(n int) Exit { return Exit{PID: 7, Code: n} }
	signal := func(s syscall.Signal) Exit { return Exit{PID: 7, Code: -1, Signal: s} }
	with := func(e Exit, f func(*Exit)) Exit { f(&e); return e }
	for _, tt := range []struct {
		name   string
		exit   Exit
		by     endContext
		reason string
		normal bool
	}{
		{"exit 0", code(0), endContext{}, "normal", true},
		{"exit 3", code(3), endContext{}, "exit code 3", false},
		{"exit 3, a success", code(3), endContext{success: []int{2, 3}}, "normal", true},
		{"exit 4, not a success", code(4), endContext{success: []int{2, 3}}, "exit code 4", false},
		{"exit 0 when asked", code(0), endContext{stopRequested: true, sent: term}, "shutdown", true},
		{"exit 3, a success, when asked", code(3), endContext{stopRequested: true, sent: term, success: []int{3}}, "shutdown", true},
		{"exit 3 when asked", code(3), endContext{stopRequested: true, sent: term}, "exit code 3", false},
		{"exit 143 when asked by SIGTERM", code(143), endContext{stopRequested: true, sent: term}, "shutdown", true},
		{"exit 143, not asked", code(143), endContext{}, "exit code 143", false},
		{"exit 143 when asked by another signal", code(143), endContext{stopRequested: true, sent: signals(0).with(syscall.SIGINT)}, "exit code 143", false},
		{"the signal that asked", signal(syscall.SIGTERM), endContext{stopRequested: true, sent: term}, "shutdown", true},
		{"the same, not asked", signal(syscall.SIGTERM), endContext{}, "signal 15 (terminated)", false},
		{"asked, but another signal", signal(syscall.SIGSEGV), endContext{stopRequested: true, sent: term}, "signal 11 (segmentation fault)", false},
		{
			"core", with(signal(syscall.SIGSEGV), func(e *Exit) { e.Core = true }),
			endContext{},
			"signal 11 (segmentation fault, core dumped)", false,
		},
		{
			"killed at the deadline", with(signal(syscall.SIGKILL), func(e *Exit) { e.Killed = KilledStop }),
			endContext{stopRequested: true, sent: both},
			"killed: not stopped in time", false,
		},
		{
			"killed, and it spoke", with(signal(syscall.SIGKILL), func(e *Exit) { e.Killed, e.Words = KilledStop, "SIGABRT: abort" }),
			endContext{sent: both},
			"killed: not stopped in time: SIGABRT: abort", false,
		},
		{"killed by somebody else", signal(syscall.SIGKILL), endContext{}, "signal 9 (killed)", false},
		{"killed by the kernel", with(signal(syscall.SIGKILL), func(e *Exit) { e.OOM = OOMCertain }), endContext{}, "signal 9 (killed): out of memory", false},
		{"by the kernel, perhaps", with(signal(syscall.SIGKILL), func(e *Exit) { e.OOM = OOMPossible }), endContext{}, "signal 9 (killed): possibly out of memory", false},
		{"panic", with(code(2), func(e *Exit) { e.Words = "panic: boom" }), endContext{}, "exit code 2: panic: boom", false},
		{"panic when asked", with(code(2), func(e *Exit) { e.Words = "panic: boom" }), endContext{stopRequested: true, sent: term}, "exit code 2: panic: boom", false},
		{"status lost", with(code(0), func(e *Exit) { e.Lost = syscall.ECHILD }), endContext{}, "error: no child processes", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := tt.exit.reason(tt.by)
			if got := r.String(); got != tt.reason || r.IsNormal() != tt.normal {
				t.Errorf("reason %q, normal %v; want %q, %v", got, r.IsNormal(), tt.reason, tt.normal)
			}
			for _, err := range []error{r.Cause, supervisor.Exit(r)} {
				if exit, ok := errors.AsType[*Exit](err); !ok || !reflect.DeepEqual(*exit, tt.exit) {
					t.Errorf("%T holds the exit %v, want %v", err, exit, tt.exit)
				}
			}
			if tt.exit.Lost != nil && !errors.Is(supervisor.Exit(r), tt.exit.Lost) {
				t.Errorf("%v is not %v", r, tt.exit.Lost)
			}
		})
	}
	if r := (Exit{}).reason(endContext{stopRequested: true}); r.Kind != supervisor.Shutdown || r.Cause != nil {
		t.Errorf("a goroutine: %v, cause %v", r, r.Cause)
	}
}
