package process

import "time"

const (
	// MaxLine is how many bytes of one line of output are kept together; what is
	// longer is broken.
	MaxLine = 8 << 10

	// Linger is how long the output of a process that has ended is still read when
	// a descendant of it keeps the pipe open.
	Linger = 500 * time.Millisecond
)
