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

// A Look is at what is outside, and need not answer: a file system whose server has gone
// away, or a directory of users.
type Look struct {
	at   atomic.Pointer[string]
	done chan struct{} // closed when it has returned, and what came too late is closed
}

// At says what is looked at from now on, for the error when that does not answer.
func (l *Look) At(what string) { l.at.Store(&what) }

// looks are the looks that have not returned yet, by key.
var looks struct {
	sync.Mutex
	at map[string]*Look
}

// Apart has look look on a goroutine of its own and returns what it returns, in time: when
// ctx ends first, an error that says at what it was looking, ETIMEDOUT if that was a
// deadline; then the result is closed when it comes. While one look of a key has not
// returned, none is begun: each takes up a thread.
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
	go func() { // ends when what it looks at answers
		defer l.end(key)
		of, err := look(l)
		select {
		case results <- result{of, err}:
		case <-ctx.Done(): // nothing else ends the wait for it
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

// late is the error of a look that has not returned before the end of ctx.
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

// Reach looks at the directory and the program of cmd, as the child does between fork and
// exec. Then this whole program waits for it: the thread that has forked does, and the
// garbage collection for that thread. What is wrong with them is for exec to say.
func Reach(l *Look, cmd *Command) {
	if cmd.Dir != "" {
		l.At("Dir " + cmd.Dir)
		_, _ = os.Stat(cmd.Dir)
	}
	l.At("program " + cmd.Args[0])
	switch {
	case cmd.Executable != nil:
		rc, err := cmd.Executable.file.SyscallConn()
		if err != nil {
			return
		}
		_ = rc.Control(func(fd uintptr) { readHead(fmt.Sprintf("/proc/self/fd/%d", fd)) }) // no other file meanwhile
	case filepath.IsAbs(cmd.Path):
		readHead(cmd.Path)
	default:
		readHead(filepath.Join(cmd.Dir, cmd.Path))
	}
}

// readHead reads the beginning of a program, as exec does.
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
