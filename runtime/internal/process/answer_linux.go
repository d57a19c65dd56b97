package process

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// answerTimeout bounds how long a start waits for a file system, or a directory of users.
// It need not answer: that of a server that has gone away does not.
const answerTimeout = 5 * time.Second

// looks are those that no file system has answered yet, by what is looked at.
var looks struct {
	sync.Mutex
	at map[string]chan struct{}
}

// Answered has look look at the file of that name, or whatever else is outside, on a
// goroutine of its own, and returns nil when that has returned in time; otherwise
// ETIMEDOUT, or the end of ctx. While one look at a name has not returned, none is begun:
// each takes up a thread.
func Answered(ctx context.Context, name string, look func()) error {
	looks.Lock()
	done := looks.at[name]
	if done == nil {
		done = make(chan struct{})
		if looks.at == nil {
			looks.at = make(map[string]chan struct{})
		}
		looks.at[name] = done
		go func() { // ends when the file system answers
			look()
			looks.Lock()
			delete(looks.at, name)
			looks.Unlock()
			close(done)
		}()
	}
	looks.Unlock()
	timer := time.NewTimer(answerTimeout)
	defer timer.Stop()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return fmt.Errorf("has not answered for %v: %w", answerTimeout, syscall.ETIMEDOUT)
	}
}

// Reachable returns an error when the directory and the program of cmd cannot be looked at
// in time. The child does so between fork and exec, when this whole program waits for it:
// the thread that has forked does, and the garbage collection for that thread.
func Reachable(ctx context.Context, cmd Command) error {
	path := cmd.Path
	if cmd.Executable != nil {
		path = fmt.Sprintf("/proc/self/fd/%d", cmd.Executable.file.Fd())
	}
	if cmd.Dir != "" {
		if err := Answered(ctx, cmd.Dir, func() { _, _ = os.Stat(cmd.Dir) }); err != nil {
			return &OptionError{"Dir " + cmd.Dir, err}
		}
		if !filepath.IsAbs(path) {
			path = filepath.Join(cmd.Dir, path)
		}
	}
	if err := Answered(ctx, path, func() { readHead(path) }); err != nil {
		return &os.PathError{Op: "start", Path: cmd.Args[0], Err: err}
	}
	return nil
}

// readHead reads the beginning of a program, as exec does. What is wrong with the file is
// for exec to say.
func readHead(path string) {
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() { // to open another may do something
		return
	}
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = io.ReadFull(f, make([]byte, 256)) // up to the end of an interpreter's line: execve(2)
}

// LookPath is exec.LookPath, with an error when a directory of PATH does not answer in time.
func LookPath(ctx context.Context, file string) (string, error) {
	if err := Answered(ctx, "PATH/"+file, func() { _, _ = exec.LookPath(file) }); err != nil {
		return "", fmt.Errorf("PATH: %w", err)
	}
	return exec.LookPath(file)
}
