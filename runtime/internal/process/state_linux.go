package process

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Suspend stops the waiting for the end of p, until Resume: a process that ends meanwhile stays a
// zombie, for the next image. It returns the state of p, and its pidfd, which p keeps. Signals can
// still be sent. Call it before Close, and once until Resume.
func (p *Process) Suspend() (ChildState, *os.File) {
	halted := p.halt.begin(p.file)
	select {
	case <-p.done:
	case <-halted.kept:
	}
	s := ChildState{PID: p.pid}
	select {
	case <-p.done:
		e := p.exit
		s = ChildState{p.pid, true, e.Code, int(e.Signal), e.Core, e.UserTime, e.SystemTime, e.MaxRSS, ""}
		if e.Lost != nil {
			s.Lost = e.Lost.Error()
		}
	default:
	}
	return s, p.file
}

// Resume goes on with the waiting, after Suspend or Restore.
func (p *Process) Resume() { p.halt.end(p.file) }

// Restore makes a Process of a state and its pidfd, in an image of this program after the one that
// suspended it. It waits for the end of the process, which may have come before, from Resume on. It
// takes ownership of pidfd; on an error the caller still has it.
func Restore(s ChildState, pidfd *os.File) (*Process, error) {
	if s.PID <= 0 {
		return nil, fmt.Errorf("the state has PID %d", s.PID)
	}
	rc, err := pidfd.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("the pidfd of %d: %w", s.PID, err)
	}
	p := &Process{pid: s.PID, done: make(chan struct{}), file: pidfd, reaped: s.Ended}
	if err := rc.Control(func(fd uintptr) { p.fd = int(fd) }); err != nil {
		return nil, fmt.Errorf("the pidfd of %d: %w", s.PID, err)
	}
	if s.Ended {
		p.exit = Exit{Code: s.Code, Signal: syscall.Signal(s.Signal), Core: s.Core, UserTime: s.UserTime, SystemTime: s.SystemTime, MaxRSS: s.MaxRSS}
		if s.Lost != "" {
			p.exit.Lost = errors.New(s.Lost)
		}
		close(p.done)
		return p, nil
	}
	if pid, err := pidOf(fmt.Sprint(p.fd)); pid != s.PID && pid != -1 { // -1: other code has reaped it
		return nil, fmt.Errorf("the state has PID %d, its descriptor is the pidfd of %d: %w", s.PID, pid, errors.Join(err, unix.EBADF))
	}
	strangersLeft.Delete(s.PID)
	p.halt.prepare()
	go p.wait(rc) // ends when the process does
	return p, nil
}

// Suspend returns the state of e and its descriptors, which e keeps.
func (e *Executable) Suspend() (ExecutableState, []*os.File) {
	if e.dir == nil {
		return ExecutableState{}, []*os.File{e.file}
	}
	return ExecutableState{true, e.name}, []*os.File{e.file, e.dir}
}

// RestoreExecutable makes an Executable of a state and its descriptors. It takes ownership of
// files; on an error the caller still has them.
func RestoreExecutable(s ExecutableState, files []*os.File) (*Executable, error) {
	want := 1
	if s.HasDir {
		want = 2
	}
	if len(files) != want {
		return nil, fmt.Errorf("the state of a program has %d descriptors, want %d", len(files), want)
	}
	for i, f := range files {
		st, err := f.Stat()
		if err == nil && st.IsDir() != (i == 1) {
			err = fmt.Errorf("of the wrong kind (%s)", st.Mode())
		}
		if err != nil {
			return nil, fmt.Errorf("descriptor %d of the state of a program: %w", i, err)
		}
	}
	e := &Executable{file: files[0], name: s.DirName}
	if s.HasDir {
		e.dir = files[1]
	}
	return e, nil
}
