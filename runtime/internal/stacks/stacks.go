// Package stacks writes the stacks of this process's goroutines.
package stacks

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"

	"github.com/coppice-go/coppice/runtime/internal/logqueue"
)

// Max bounds the text of the stacks of one process, in bytes.
const Max = 1 << 20

// Take returns the stacks of all goroutines of this process, cut at Max.
func Take() []byte {
	b := make([]byte, Max)
	return b[:runtime.Stack(b, true)]
}

// Of returns the stack of the goroutine with a number; "" if there is none, or not within Max.
func Of(goroutine int64) string {
	_, rest, ok := bytes.Cut(append([]byte("\n\n"), Take()...), fmt.Appendf(nil, "\n\ngoroutine %d ", goroutine))
	if !ok {
		return ""
	}
	stack, _, _ := bytes.Cut(rest, []byte("\n\n"))
	return fmt.Sprintf("goroutine %d %s", goroutine, stack)
}

// printing is set while Print prints.
var printing atomic.Bool

// Print prints the stacks of all goroutines to standard error, for a SIGQUIT. While it prints a
// further call does nothing, however many signals come.
func Print() {
	if printing.Swap(true) {
		return
	}
	defer printing.Store(false)
	logqueue.PrintLine(os.Stderr, Text())
}

// Text returns what a SIGQUIT prints.
func Text() string {
	return fmt.Sprintf("coppice: SIGQUIT: the goroutines of process %d\n\n%s", os.Getpid(), Take())
}
