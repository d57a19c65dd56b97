package process

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"time"
)

// Lines reads the output of a process, line by line, to its end.
type Lines struct {
	done chan struct{} // closed after the last line
	r    *os.File
}

// ReadLines takes ownership of r and hands each line, without its newline, to write, from one
// goroutine that ends with r. write owns the line until it returns. A last line without a newline
// counts as a line.
func ReadLines(r *os.File, write func(line []byte)) *Lines {
	l := &Lines{done: make(chan struct{}), r: r}
	go func() {
		defer close(l.done)
		defer r.Close()
		br := bufio.NewReaderSize(&untilDeadline{r: r}, MaxLine)
		for {
			line, err := br.ReadSlice('\n')
			if line = bytes.TrimSuffix(line, []byte("\n")); len(line) > 0 || err == nil {
				write(line)
			}
			if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
				return
			}
		}
	}()
	return l
}

// Finish waits for the last line of the outputs of a process that has ended. If a descendant still
// has a pipe, Finish waits for at most [Linger], and the bytes in the pipe at that time are still
// read. write may get some of these lines after Finish has returned.
func Finish(outputs ...*Lines) {
	end := time.Now().Add(Linger)
	for _, l := range outputs {
		_ = l.r.SetReadDeadline(end) // fails when r is closed: then it is done
	}
	late := time.NewTimer(2 * Linger)
	defer late.Stop()
	for _, l := range outputs {
		select {
		case <-l.done:
		case <-late.C:
			return
		}
	}
}
