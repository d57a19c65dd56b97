package process

import "time"

// ChildState is the state of a [Process]. Its descriptor is the pidfd.
type ChildState struct {
	PID   int
	Ended bool // and reaped: the fields below say how, as those of [Exit]

	Code                 int
	Signal               int
	Core                 bool
	UserTime, SystemTime time.Duration
	MaxRSS               int64
	Lost                 string
}

// LinesState is the state of a [Lines]. Its descriptor is the end of the pipe; it has none if the
// output has ended.
type LinesState struct {
	Ended bool
	Rest  []byte // was read, and not written yet; it may have several lines, and begin within one
}

// ExecutableState is the state of an [Executable]. Its descriptors are the file and, if HasDir is
// set, the directory.
type ExecutableState struct {
	HasDir  bool
	DirName string
}
