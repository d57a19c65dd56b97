package coppice

import (
	"errors"
	"fmt"
	"os"
	"strconv"
)

// depthVar tells the processes of a tree, and what they start, how many trees they
// are in.
const depthVar = "COPPICE_DEPTH"

// maxDepth is how many trees a tree may be in: a service that is the Process of
// another, whose worker runs a tool that is a third. What goes deeper is a worker
// that starts its own program anew, which starts workers.
const maxDepth = 2

// ErrTooDeep is returned by Start in a program that was started, however
// indirectly, from a process of a tree that is itself in too many.
var ErrTooDeep = errors.New("coppice: a program of a tree starts a tree, again and again")

// depth returns how many trees this process is in, and an error when it may not
// start another. A value that is no number was not set by a tree.
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

// deeper is the variable that the processes of this program's tree get.
func deeper() string {
	n, _ := depth()
	return depthVar + "=" + strconv.Itoa(n+1)
}
