package process

import "time"

const (
	// readSize is how much of an output is read at a time.
	readSize = 8 << 10

	// Linger is how long the output of a process is still read after its end if a descendant keeps
	// the pipe open.
	Linger = 500 * time.Millisecond
)
