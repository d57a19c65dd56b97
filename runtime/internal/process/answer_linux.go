package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
)

// A Look is a call of the outside that may not answer: of a file system whose server has gone away,
// or of a user directory.
type Look struct {
	at   atomic.Pointer[string]
	done chan struct{} // closed when the look has returned, and a late result is closed
}

// At names what the look calls next, for the error if that does not answer.
func (l *Look) At(what string) { l.at.Store(&what) }

// looks holds the looks that have not returned yet, by key.
var looks struct {
	sync.Mutex
	at map[string]*Look
}

// Apart calls look on another goroutine and returns its result. If ctx ends first, it returns an
// error that names what the look was calling, ETIMEDOUT after a deadline; then a late result is
// closed. It begins no look while an earlier look of the same key has not returned, because each
// occupies a thread.
func Apart[T io.Closer](ctx context.Context, key string, look func(*Look) (T, error)) (T, error) {
	var none T
	l := &Look{done: make(chan struct{})}
	for before := enter(key, l); before != nil; before = enter(key, l) {
		select {
		case <-before.done:
		case <-ctx.Done():
			return none, before.late(ctx)
		}
	}
	type result struct {
		of  T
		err error
	}
	results := make(chan result)
	go func() { // ends when the call returns
		defer l.end(key)
		of, err := look(l)
		select {
		case results <- result{of, err}:
		case <-ctx.Done(): // only ctx bounds the wait for a call that does not return
			if err == nil {
				_ = of.Close()
			}
		}
	}()
	select {
	case r := <-results:
		return r.of, r.err
	case <-ctx.Done():
		return none, l.late(ctx)
	}
}

// enter makes l the look of a key, or returns the earlier look that has not returned yet.
func enter(key string, l *Look) (before *Look) {
	looks.Lock()
	defer looks.Unlock()
	if before := looks.at[key]; before != nil {
		return before
	}
	if looks.at == nil {
		looks.at = make(map[string]*Look)
	}
	looks.at[key] = l
	return nil
}

func (l *Look) end(key string) {
	looks.Lock()
	delete(looks.at, key)
	looks.Unlock()
	close(l.done)
}

// late returns the error of a look that has not returned before the end of ctx.
func (l *Look) late(ctx context.Context) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return ctx.Err()
	}
	what := "what it takes"
	if at := l.at.Load(); at != nil {
		what = *at
	}
	return fmt.Errorf("%s has not answered in time: %w; %w", what, syscall.ETIMEDOUT, context.Cause(ctx))
}

// Reach opens the directory and the program of cmd, as the child does between fork and exec. It is
// to find out beforehand whether they answer, because every other start waits for the exec. Reach
// returns no errors of theirs: exec does.
func Reach(l *Look, cmd *Command) {
	of := *cmd
	if err := of.findDir(); err == nil && of.dir != "" {
		l.At("Dir " + of.Dir)
		_, _ = os.Stat(of.dir)
	}
	l.At("program " + cmd.Args[0])
	switch {
	case cmd.Executable != nil:
		rc, err := cmd.Executable.file.SyscallConn()
		if err != nil {
			return
		}
		_ = rc.Control(func(fd uintptr) { readHead(fmt.Sprintf("/proc/self/fd/%d", fd)) }) // fd stays this file during the call
	case filepath.IsAbs(cmd.Path):
		readHead(cmd.Path)
	default:
		readHead(filepath.Join(cmd.Dir, cmd.Path))
	}
}

// readHead reads the first bytes of a program, as exec does.
func readHead(path string) {
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() { // to open another kind of file may have effects
		return
	}
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	_, _ = io.ReadFull(f, make([]byte, 256)) // up to the end of an interpreter's line: execve(2)
}
