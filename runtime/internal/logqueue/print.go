package logqueue

import (
	"fmt"
	"io"
	"time"
)

// FlushTimeout bounds how long the end of a process waits until its log and output are written.
const FlushTimeout = time.Second

// PrintLine prints what to w, which may block, and waits for that at most FlushTimeout.
func PrintLine(w io.Writer, what any) {
	done := make(chan struct{})
	go func() { // ends when it has printed, or with the program
		defer close(done)
		fmt.Fprintln(w, what)
	}()
	select {
	case <-done:
	case <-time.After(FlushTimeout):
	}
}
