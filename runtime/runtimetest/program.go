// Package runtimetest helps to test programs built on Coppice. [Worker] runs a worker function in a
// test, [Tree] a tree. [Main] and [Start] test a whole program from outside: they start it, read
// its output, load it over HTTP, and count the processes and descriptors of its tree. [Faults] and
// [NoDescriptors] have things go wrong, and [Leaks] says what a test leaves behind.
// docs/testing.md says which to choose.
package runtimetest

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Patience is how long the package's waits last before they fail the test: far beyond what a loaded
// machine needs, so that reaching it means a defect.
const Patience = 60 * time.Second

// programVar is set in the environment of a test binary that runs as the program under test.
const programVar = "COPPICE_TEST_PROGRAM"

// Main is the TestMain of a package whose test binary is also the program that its tests start. In
// a process that [Start] has begun, and in the children of that process, it runs program; elsewhere
// it runs the tests.
//
//	func TestMain(m *testing.M) { runtimetest.Main(m, main) }
func Main(m *testing.M, program func()) {
	if os.Getenv(programVar) != "" {
		beAsInstalled()
		program()
		return
	}
	endAtOnce()
	os.Exit(m.Run())
}

// handleIgnored makes the programs of [Start] react to the signals that this process was started to
// ignore, by nohup or as a background job: a signal that is handled here has its default after
// their exec.
var handleIgnored = sync.OnceFunc(func() {
	for _, sig := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(sig) {
			signal.Notify(make(chan os.Signal, 1), sig)
		}
	}
})

// A Program is a running program and the lines it has printed.
type Program struct {
	t   testing.TB
	cmd *exec.Cmd

	mu    sync.Mutex
	lines []string
	grew  chan struct{} // closed and replaced with each line

	ended chan struct{} // closed when it has been waited for
	err   error
}

// Start starts the program of [Main] with args, and with env added to this process's environment.
// When the test ends, processes that still run are killed, and their output is logged if the test
// failed.
func Start(t testing.TB, env []string, args ...string) *Program {
	t.Helper()
	return StartWith(t, env, nil, args...)
}

// StartWith is Start with files that the program inherits as descriptors 3, 4, and so on. The files
// are borrowed until StartWith returns.
func StartWith(t testing.TB, env []string, files []*os.File, args ...string) *Program {
	t.Helper()
	handleIgnored()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return start(t, self, env, files, args...)
}

// StartAt is [Start] with a program file at another path, which must be the program of [Main].
func StartAt(t testing.TB, path string, env []string, args ...string) *Program {
	t.Helper()
	handleIgnored()
	return start(t, path, env, nil, args...)
}

func start(t testing.TB, self string, env []string, files []*os.File, args ...string) *Program {
	t.Helper()
	p := &Program{t: t, cmd: exec.Command(self, args...), grew: make(chan struct{}), ended: make(chan struct{})}
	p.cmd.Env = append(append(os.Environ(), programVar+"=1"), env...)
	p.cmd.ExtraFiles = files
	p.cmd.SysProcAttr = ownGroup()
	r, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("start %s: %v", self, err)
	}
	read := make(chan struct{})
	go func() { // ends with the pipe
		defer close(read)
		for s := bufio.NewScanner(r); s.Scan(); {
			p.add(s.Text())
		}
		_, _ = io.Copy(io.Discard, r) // a line that is too long for the scanner
	}()
	go func() { // ends with the program
		p.err = p.cmd.Wait()
		w.Close()
		<-read
		close(p.ended)
	}()
	t.Cleanup(func() {
		select {
		case <-p.ended:
		default:
			_ = p.cmd.Process.Kill()
			<-p.ended
		}
		if t.Failed() {
			for _, l := range p.Lines() {
				t.Log("| " + l)
			}
		}
	})
	return p
}

func (p *Program) add(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lines = append(p.lines, line)
	close(p.grew)
	p.grew = make(chan struct{})
}

// Lines returns a copy of the lines printed so far, both streams.
func (p *Program) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.lines...)
}

// PID returns the program's process number.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Await waits for a line that matches re and returns its submatches. It fails the test if the
// program ends without such a line.
func (p *Program) Await(re string) []string {
	p.t.Helper()
	r, deadline := regexp.MustCompile(re), time.After(Patience)
	for at := 0; ; {
		p.mu.Lock()
		lines, grew := p.lines, p.grew
		p.mu.Unlock()
		for ; at < len(lines); at++ {
			if m := r.FindStringSubmatch(lines[at]); m != nil {
				return m
			}
		}
		select {
		case <-grew:
			continue
		case <-p.ended:
			p.mu.Lock()
			more := len(p.lines) > at
			p.mu.Unlock()
			if more {
				continue
			}
			p.t.Fatalf("the program ended (%v) without a line like %q", p.err, re)
		case <-deadline:
			p.t.Fatalf("no line like %q within %v", re, Patience)
		}
	}
}

// Signal sends sig to the program's own process.
func (p *Program) Signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatalf("signal %v: %v", sig, err)
	}
}

// Ended returns a channel that is closed when the program has ended and all its output is read.
func (p *Program) Ended() <-chan struct{} { return p.ended }

// Wait waits for the end and returns the exit code, or -1 if a signal ended the program.
func (p *Program) Wait() int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(Patience):
		p.t.Fatalf("the program still runs after %v", Patience)
	}
	var exit *exec.ExitError
	switch {
	case p.err == nil:
		return 0
	case errors.As(p.err, &exit):
		return exit.ExitCode()
	}
	p.t.Fatalf("wait: %v", p.err)
	return -1
}

// Eventually polls cond until it is true, and fails the test with what if it is not true within
// [Patience]. It is for the state of other processes, which send no notice of it.
func Eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(Patience); ; {
		if cond() {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("not within %v: %s", Patience, what)
		}
	}
}
