package process

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"time"
	"unicode/utf8"
)

// Lines reads the output of a process, line by line, to its end.
type Lines struct {
	done chan struct{} // closed after the last line
	r    *os.File
}

// ReadLines takes ownership of r and hands each line, without its newline, to write, from one
// goroutine that ends with r. write owns the line until it returns. A last line without a newline
// counts as a line. A line of more than maxLine bytes comes in pieces; more says that the line goes
// on with the next piece. No piece ends within a rune.
func ReadLines(r *os.File, maxLine int, write func(line []byte, more bool)) *Lines {
	l := &Lines{done: make(chan struct{}), r: r}
	go func() {
		defer close(l.done)
		defer r.Close()
		br := bufio.NewReaderSize(&untilDeadline{r: r}, readSize)
		var begun []byte // of a line that is longer than the reader's buffer
		for {
			line, err := br.ReadSlice('\n')
			whole := err == nil
			line = bytes.TrimSuffix(line, []byte("\n"))
			if len(begun) > 0 {
				begun = append(begun, line...)
				line = begun
			}
			for len(line) > maxLine {
				n := pieceOf(line, maxLine)
				write(line[:n], true)
				line = line[n:]
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				begun = append(begun[:0], line...)
				continue
			}
			if len(line) > 0 || whole {
				write(line, false)
			}
			begun = nil
			if !whole {
				return
			}
		}
	}()
	return l
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
