// Package stacks writes the stacks of this process's goroutines.
package stacks

import (
	"fmt"
	"os"
	"runtime"

	"github.com/coppice-go/coppice/runtime/internal/logqueue"
)

// Max bounds the text of the stacks of one process, in bytes.
const Max = 1 << 20

// Take returns the stacks of all goroutines of this process, cut at Max.
func Take() []byte {
	b := make([]byte, Max)
	return b[:runtime.Stack(b, true)]
}

// Print prints the stacks of all goroutines to standard error, for a SIGQUIT.
func Print() { logqueue.PrintLine(os.Stderr, Text()) }

// Text returns what a SIGQUIT prints.
func Text() string {
	return fmt.Sprintf("coppice: SIGQUIT: the goroutines of process %d\n\n%s", os.Getpid(), Take())
}
