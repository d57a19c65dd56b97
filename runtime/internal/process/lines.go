package process

import "time"

const (
	// MaxLine is the maximum length of a line of output in bytes; a longer line is split.
	MaxLine = 8 << 10

	// Linger is how long the output of a process is still read after its end if a descendant keeps
	// the pipe open.
	Linger = 500 * time.Millisecond
)
