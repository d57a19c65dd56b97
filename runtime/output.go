package coppice

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"time"
)

const (
	maxLine = 8 << 10 // bytes of one line of output; what is longer is broken

	// lingerTimeout is how long the output of a process that has ended is still
	// read when a descendant of it keeps the pipe open.
	lingerTimeout = 500 * time.Millisecond
)

// lines reads a process's output, line by line, to its end.
type lines struct {
	done chan struct{} // closed after the last line
	r    *os.File

	mu    sync.Mutex
	words string // the newest line in which a Go program said why it dies
}

// readLines takes ownership of r and hands each line, without its newline, to
// write, from one goroutine that ends with r. An unfinished last line is a line.
func readLines(r *os.File, write func(line []byte)) *lines {
	l := &lines{done: make(chan struct{}), r: r}
	go func() {
		defer close(l.done)
		defer r.Close()
		br := bufio.NewReaderSize(r, maxLine)
		for {
			line, err := br.ReadSlice('\n')
			if line = bytes.TrimSuffix(line, []byte("\n")); len(line) > 0 || err == nil {
				l.note(line)
				write(line)
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return
			}
		}
	}()
	return l
}

// note remembers a line in which a Go program says why it dies. The dump that
// follows it may be long.
func (l *lines) note(line []byte) {
	if !isLastWords(string(line)) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.words = string(line)
}

// finish waits for the last line of the outputs of a process that has ended. A
// descendant that still has a pipe may keep it for lingerTimeout; lines that
// Config.Output does not take by then come later.
func finish(outputs ...*lines) {
	end := time.Now().Add(lingerTimeout)
	for _, l := range outputs {
		_ = l.r.SetReadDeadline(end) // fails when r is closed: then it is done
	}
	late := time.NewTimer(2 * lingerTimeout)
	defer late.Stop()
	for _, l := range outputs {
		select {
		case <-l.done:
		case <-late.C:
			return
		}
	}
}

// lastWords returns the line in which the program said why it dies, or "".
func (l *lines) lastWords() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.words
}

// tagged writes whole lines of several processes to one stream, each behind its
// writer's tag. Safe for concurrent use.
type tagged struct {
	mu  sync.Mutex
	dst io.Writer
	buf []byte
}

// line writes "tag| text\n" in one Write. A stream that cannot be written to
// costs the line: output is not worth a worker's life.
func (t *tagged) line(tag string, text []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(append(t.buf[:0], tag...), "| "...)
	t.buf = append(append(t.buf, text...), '\n')
	_, _ = t.dst.Write(t.buf)
}
