package process

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

// Lines reads the output of a process, line by line, to its end.
type Lines struct {
	done  chan struct{} // closed after the last line
	r     *os.File
	max   int
	write func(line []byte, more bool)

	halt   halt
	ending atomic.Bool // set by Finish
}

// ReadLines takes ownership of r and hands each line, without its newline, to write, from one
// goroutine that ends with r. write owns the line until it returns. A last line without a newline
// counts as a line. A line of more than maxLine bytes comes in pieces; more says that the line goes
// on with the next piece. No piece ends within a rune.
func ReadLines(r *os.File, maxLine int, write func(line []byte, more bool)) *Lines {
	l := &Lines{done: make(chan struct{}), r: r, max: maxLine, write: write}
	go l.read(&untilDeadline{r: r, ending: &l.ending})
	return l
}

func (l *Lines) read(from io.Reader) {
	defer close(l.done)
	defer l.r.Close()
	br := bufio.NewReaderSize(from, readSize)
	var begun []byte // of a line that is longer than the reader's buffer
	for {
		if halted := l.halt.now.Load(); halted != nil {
			buffered, _ := br.Peek(br.Buffered()) // it cannot fail
			halted.wait(slices.Concat(begun, buffered))
		}
		line, err := br.ReadSlice('\n')
		whole := err == nil
		line = bytes.TrimSuffix(line, []byte("\n"))
		if len(begun) > 0 {
			begun = append(begun, line...)
			line = begun
		}
		for len(line) > l.max {
			n := pieceOf(line, l.max)
			l.write(line[:n], true)
			line = line[n:]
		}
		if errors.Is(err, bufio.ErrBufferFull) || errors.Is(err, errHalted) {
			begun = append(begun[:0], line...)
			continue
		}
		if len(line) > 0 || whole {
			l.write(line, false)
		}
		begun = nil
		if !whole {
			return
		}
	}
}

// Suspend stops the reading, until Resume, and returns the state of l and its end of the pipe,
// which l keeps. It waits for a write that is under way, and for the end of l if [Finish] was
// called; if ctx ends first it returns the error, and l goes on. The process keeps writing, until
// the pipe is full. No second Suspend may come before Resume.
func (l *Lines) Suspend(ctx context.Context) (LinesState, *os.File, error) {
	p := &pause{}
	if !l.ending.Load() {
		p = l.halt.begin(l.r)
	}
	select {
	case rest := <-p.kept:
		return LinesState{Rest: rest}, l.r, nil
	case <-l.done:
		return LinesState{Ended: true}, nil, nil
	case <-ctx.Done():
		l.Resume()
		return LinesState{}, nil, context.Cause(ctx)
	}
}

// Resume goes on with the reading, after Suspend or RestoreLines.
func (l *Lines) Resume() {
	l.halt.end(l.r)
	if l.ending.Load() { // Finish was called meanwhile
		_ = l.r.SetReadDeadline(time.Now().Add(Linger)) // fails when r is closed
	}
}

// RestoreLines makes a Lines of a state and its end of the pipe, as [ReadLines] does, in an image
// of this program after the one that suspended it. It reads from Resume on. It takes ownership of
// r; on an error the caller still has it.
func RestoreLines(s LinesState, r *os.File, maxLine int, write func(line []byte, more bool)) (*Lines, error) {
	if s.Ended != (r == nil) {
		return nil, fmt.Errorf("the state of an output: Ended is %t, and there is a pipe: %t", s.Ended, r != nil)
	}
	l := &Lines{done: make(chan struct{}), r: r, max: maxLine, write: write}
	if s.Ended {
		close(l.done)
		return l, nil
	}
	l.halt.prepare()
	go l.read(io.MultiReader(bytes.NewReader(s.Rest), &untilDeadline{r: r, ending: &l.ending}))
	return l, nil
}

// pieceOf returns the length of the piece of line that has at most most bytes and ends with a rune.
func pieceOf(line []byte, most int) int {
	for n := most; n > most-utf8.UTFMax; n-- {
		if utf8.RuneStart(line[n]) {
			return n
		}
	}
	return most // no text
}

// Finish waits for the last line of the outputs of a process that has ended. If a descendant still
// has a pipe, Finish waits for at most [Linger], and the bytes in the pipe at that time are still
// read. write may get some of these lines after Finish has returned.
func Finish(outputs ...*Lines) {
	end := time.Now().Add(Linger)
	for _, l := range outputs {
		l.ending.Store(true)
		_ = l.r.SetReadDeadline(end) // fails when r is closed: then it is done
	}
	late := time.After(2 * Linger)
	for _, l := range outputs {
		select {
		case <-l.done:
		case <-late:
			return
		}
	}
}
