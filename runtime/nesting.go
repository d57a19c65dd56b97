package coppice

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

// depthVar is the variable in which the processes of a tree, and those that they start, find how
// many trees they are in.
const depthVar = "COPPICE_DEPTH"

// maxDepth is how many trees a tree may be in: a service that is the Process of another, whose
// worker runs a tool that is a third. Deeper nesting comes from a worker that starts its own
// program again, which starts workers.
const maxDepth = 2

// ErrTooDeep is returned by Start in a program that a process of a tree started, directly or
// indirectly, when that tree is itself in too many.
var ErrTooDeep = errors.New("coppice: a program of a tree starts a tree, again and again")

// depth returns how many trees this process is in, and an error when it may not start another. A
// value that is not a number was not set by a tree.
func depth() (int, error) {
	n, err := strconv.Atoi(os.Getenv(depthVar))
	if err != nil || n < 0 {
		n = 0
	}
	if n > maxDepth {
		return n, fmt.Errorf("%w: %s=%d", ErrTooDeep, depthVar, n)
	}
	return n, nil
}

// deeper returns the variable that the processes of this program's tree get.
func deeper() string {
	n, _ := depth()
	return depthVar + "=" + strconv.Itoa(n+1)
}
