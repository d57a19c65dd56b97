//go:build linux

package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// itself is this test binary as a foreign program.
func itself(program string, env ...string) coppice.Process {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return coppice.Process{
		Name: "program", Command: []string{self},
		Environment: coppice.Environment{Env: append([]string{programVar + "=" + program}, env...)},
	}
}

func notify(socket, message string) {
	conn, err := net.Dial("unixgram", socket)
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(message)); err != nil {
		panic(err)
	}
}

func init() {
	programs["waits"] = func() { time.Sleep(time.Hour) }
	programs["fails"] = func() {
		fmt.Println("opening the index")
		fmt.Fprintln(os.Stderr, "no index")
		os.Exit(3)
	}
	programs["notifies"] = func() {
		notify(os.Getenv("NOTIFY_SOCKET"), os.Getenv("MESSAGE"))
		time.Sleep(time.Hour)
	}
	programs["notifies and ends"] = func() { notify(os.Getenv("NOTIFY_SOCKET"), "READY=1") }
	programs["notifies by a helper"] = func() { // as a shell script does with systemd-notify(1)
		self, err := os.Executable()
		if err != nil {
			panic(err)
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), programVar+"=notifies and ends")
		if err := cmd.Run(); err != nil {
			panic(err)
		}
		time.Sleep(time.Hour)
	}
	programs["notifies late"] = func() { // later than it was given, but it says so
		notify(os.Getenv("NOTIFY_SOCKET"), "STATUS=reading\nEXTEND_TIMEOUT_USEC=60000000")
		for !timeIsUp(os.Getenv("MS")) {
			runtime.Gosched()
		}
		notify(os.Getenv("NOTIFY_SOCKET"), "READY=1")
		time.Sleep(time.Hour)
	}
	programs["gives its socket away"] = func() {
		fmt.Println("socket", os.Getenv("NOTIFY_SOCKET"))
		time.Sleep(time.Hour)
	}
	programs["listens"] = func() {
		ln, err := net.Listen("unix", os.Getenv("SOCKET"))
		if err != nil {
			panic(err)
		}
		for {
			if _, err := ln.Accept(); err != nil {
				panic(err)
			}
		}
	}
	programs["speaks"] = func() {
		fmt.Println("reading")
		fmt.Fprintln(os.Stderr, "serving on port 7")
		time.Sleep(time.Hour)
	}
	programs["deaf"] = func() {
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT)
		fmt.Println("deaf")
		time.Sleep(time.Hour)
	}
	programs["ends at SIGINT"] = func() {
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGINT)
		signal.Ignore(syscall.SIGTERM)
		fmt.Println("deaf")
		<-c
	}
	programs["leaves a deaf child"] = func() {
		self, err := os.Executable()
		if err != nil {
			panic(err)
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), programVar+"=deaf")
		cmd.Stdout = os.Stdout
		if err := cmd.Start(); err != nil {
			panic(err)
		}
		fmt.Println("left", cmd.Process.Pid)
		time.Sleep(time.Hour)
	}
}

var born = time.Now()

// timeIsUp reports whether the process has lived for d.
func timeIsUp(d string) bool {
	ms, err := time.ParseDuration(d)
	return err != nil || time.Since(born) > ms
}

// with waits for a line with that beginning, and returns the rest of it.
func (p *printed) with(t *testing.T, prefix string) (rest string) {
	t.Helper()
	runtimetest.Eventually(t, "a line "+prefix, func() bool {
		for line := range strings.Lines(p.String()) {
			var ok bool
			if rest, ok = strings.CutPrefix(line, prefix); ok {
				return true
			}
		}
		return false
	})
	return strings.TrimSpace(rest)
}

// forest is a tree of foreign programs, which looks the same in every process.
func forest(t *testing.T, children ...coppice.ChildSpec) (coppice.Config, *printed) {
	out := &printed{to: testWriter{t}}
	return coppice.Config{
		Children: children, Output: out, Logger: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Intensity: supervisor.Intensity{Max: 5, Period: time.Minute},
	}, out
}

// noneLeft fails the test when children of it are left.
func noneLeft(t *testing.T) {
	t.Helper()
	if kids := runtimetest.Children(t, os.Getpid()); len(kids) != 0 {
		t.Errorf("children left: %v", kids)
	}
}

// TestReadiness: each sign of readiness, in time, and not; and the text of the error.
func TestReadiness(t *testing.T) {
	socket := t.TempDir() + "/socket"
	for _, tt := range []struct {
		name    string
		program coppice.Process
		ready   coppice.Ready
		short   bool // of StartTimeout
		never   bool // in time
		says    []string
	}{
		{"at once", itself("waits"), coppice.Ready{}, false, false, nil},
		{"notified", itself("notifies", "MESSAGE=READY=1"), coppice.Ready{Notify: true}, false, false, nil},
		{"notified by a helper that has ended", itself("notifies by a helper"), coppice.Ready{Notify: true}, false, false, nil},
		{"notified after an extension", itself("notifies late", "MS=600ms"), coppice.Ready{Notify: true}, true, false, nil},
		{"a port", itself("listens", "SOCKET="+socket+".1"), coppice.Ready{Network: "unix", Address: socket + ".1"}, false, false, nil},
		{"a line", itself("speaks"), coppice.Ready{Line: `^serving on port \d+$`}, false, false, nil},
		{"alive", itself("waits"), coppice.Ready{Alive: 50 * time.Millisecond}, false, false, nil},

		{"never notified", itself("notifies", "MESSAGE=STATUS=loading"), coppice.Ready{Notify: true}, true, true, []string{
			"program did not start: ", "waited", "READY=1 on its NOTIFY_SOCKET", "its status: loading", "not ready in time",
		}},
		{"never a port", itself("speaks"), coppice.Ready{Network: "unix", Address: socket + ".2"}, true, true, []string{
			"a connection to unix " + socket + ".2", "\nprogram| serving on port 7",
		}},
		{"never a line", itself("speaks"), coppice.Ready{Line: "port 8"}, true, true, []string{`a line like "port 8"`, "\nprogram| reading"}},
		{"not alive for long enough", itself("waits"), coppice.Ready{Alive: time.Hour}, true, true, []string{"1h0m0s of life"}},
		{"ended", itself("fails"), coppice.Ready{Alive: time.Hour}, false, true, []string{
			"program did not start: it ended before it was ready (1h0m0s of life): exit code 3\n", "\nprogram| opening the index", "\nprogram| no index",
		}},
		{"ended, notified", itself("notifies and ends"), coppice.Ready{Line: "never"}, false, true, []string{"ended before it was ready"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.program.Ready = tt.ready
			if tt.short {
				tt.program.StartTimeout = time.Second // in which one of them is to print its line
			}
			cfg, _ := forest(t, tt.program)
			rt, err := coppice.Start(t.Context(), cfg)
			if err == nil {
				if tt.never {
					t.Error("it started")
				}
				if err := rt.Shutdown(t.Context()); err != nil {
					t.Error(err)
				}
				noneLeft(t)
				return
			}
			if !tt.never {
				t.Fatal(err)
			}
			if late := errors.Is(err, coppice.ErrNotReady); late != tt.short {
				t.Errorf("%v is ErrNotReady: %v", err, late)
			}
			for _, say := range tt.says {
				if !strings.Contains(err.Error(), say) {
					t.Errorf("error %q does not say %q", err, say)
				}
			}
			if exit, ok := errors.AsType[*coppice.Exit](err); !ok || tt.short && exit.Killed != coppice.KilledNotReady {
				t.Errorf("the error holds the exit %+v", exit)
			}
			noneLeft(t)
		})
	}
}

// TestNotifyStranger: other processes that know the socket's name cannot report that a program is
// ready.
func TestNotifyStranger(t *testing.T) {
	program := itself("gives its socket away")
	program.Ready, program.StartTimeout = coppice.Ready{Notify: true}, 3*time.Second
	cfg, out := forest(t, program)
	started := make(chan error)
	go func() {
		_, err := coppice.Start(t.Context(), cfg)
		started <- err
	}()
	notify(out.with(t, "program| socket "), "READY=1")
	if err := <-started; !errors.Is(err, coppice.ErrNotReady) {
		t.Errorf("error %v", err)
	}
	noneLeft(t)
}

// TestStopSteps: the steps to end a program, their order and times, and what happens to its group.
func TestStopSteps(t *testing.T) {
	const time10 = 500 * time.Millisecond
	for _, tt := range []struct {
		name    string
		program coppice.Process
		steps   []string
		reason  supervisor.ReasonKind
	}{
		{"ends at SIGTERM", coppice.Process{Command: []string{"sleep", "3600"}}, []string{"SIGTERM"}, supervisor.Shutdown},
		{"is deaf", func() coppice.Process { p := itself("deaf"); p.Ready.Line = "deaf"; return p }(), []string{"SIGTERM", "SIGKILL"}, supervisor.Killed},
		{"ends at the signal that it has chosen", func() coppice.Process {
			p := itself("ends at SIGINT")
			p.Ready.Line, p.Stop = "deaf", syscall.SIGINT
			return p
		}(), []string{"SIGINT"}, supervisor.Shutdown},
		{"ignores the signal that it has chosen", func() coppice.Process {
			p := itself("deaf")
			p.Ready.Line, p.Stop = "deaf", syscall.SIGINT
			return p
		}(), []string{"SIGINT", "SIGTERM", "SIGKILL"}, supervisor.Killed},
		{"brutally", func() coppice.Process {
			p := itself("ends at SIGINT")
			p.Ready.Line, p.Shutdown = "deaf", supervisor.BrutalKill
			return p
		}(), []string{"SIGKILL"}, supervisor.Killed},
		{"leaves a deaf child", func() coppice.Process {
			p := itself("leaves a deaf child")
			p.Ready.Line = "deaf"
			return p
		}(), []string{"SIGTERM", "SIGKILL to its group"}, supervisor.Shutdown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.program.Name = "program"
			if tt.program.Shutdown == 0 {
				tt.program.Shutdown = time10
			}
			cfg, out := forest(t, tt.program)
			rt, err := coppice.Start(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			sub := rt.Events(coppice.FromNow)
			left := ""
			if tt.steps[len(tt.steps)-1] == "SIGKILL to its group" {
				left = out.with(t, "program| left ")
			}
			if err := rt.Shutdown(t.Context()); err != nil {
				t.Error(err)
			}
			for ev := range sub.All(t.Context()) {
				if ev.Kind != coppice.ChildStopped {
					continue
				}
				exit, ok := errors.AsType[*coppice.Exit](ev.Reason.Cause)
				if !ok {
					t.Fatalf("no exit in %v", ev)
				}
				var steps []string
				for _, s := range exit.Steps {
					steps = append(steps, s.What)
				}
				t.Log(exit.Steps)
				if !slices.Equal(steps, tt.steps) || ev.Reason.Kind != tt.reason {
					t.Errorf("steps %v, reason %v; want %v, %v", steps, ev.Reason, tt.steps, tt.reason)
				}
				for i, s := range exit.Steps {
					if s.What == "SIGTERM" && i > 0 && s.After < time10*9/10 || strings.HasPrefix(s.What, "SIGKILL") && i > 0 && s.After < time10 {
						t.Errorf("%v: too soon", s)
					}
				}
				break
			}
			if left != "" {
				runtimetest.Eventually(t, "the child that was left has ended", func() bool { return !runtimetest.Alive(atoi(t, left)) })
			}
			noneLeft(t)
		})
	}
}

func atoi(t *testing.T, s string) (n int) {
	t.Helper()
	if _, err := fmt.Sscan(s, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// TestGroupOfTheDead: the processes that a killed program has left behind in its group are ended
// before the program is started again.
func TestGroupOfTheDead(t *testing.T) {
	cfg, out := forest(t, coppice.Process{
		Name: "script", Command: []string{"sh", "-c", "sleep 3600 & echo left $!; wait"}, Ready: coppice.Ready{Line: "left"},
	})
	rt, err := coppice.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := rt.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
		noneLeft(t)
	}()
	sub := rt.Events(coppice.FromNow)
	left := atoi(t, out.with(t, "script| left "))
	p := runningTree{Runtime: rt, t: t}
	if err := syscall.Kill(p.pid("script"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for ev := range sub.All(t.Context()) {
		if ev.Kind == coppice.ChildExited {
			if runtimetest.Alive(left) {
				t.Error("what it has left behind lives")
			}
			exit, ok := errors.AsType[*coppice.Exit](ev.Reason.Cause)
			if !ok || exit.Signal != syscall.SIGKILL || exit.Killed != "" || len(exit.Steps) != 1 || exit.Steps[0].What != "SIGTERM to its group" {
				t.Errorf("exit %+v", exit)
			}
		}
		if ev.Kind == coppice.ChildStarted {
			break
		}
	}
}
