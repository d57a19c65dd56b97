// Package stacks writes the stacks of this process's goroutines.
package stacks

import (
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
