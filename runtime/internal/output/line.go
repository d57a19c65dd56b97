// Package output brings what the processes of a tree print to where it is written.
package output

import "time"

// The streams of a process.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// A Line is one line that a process has printed. Its fields are those of the runtime's OutputLine,
// to which it converts.
type Line struct {
	Time        time.Time
	Name        string
	ID          int
	PID         int
	Incarnation int
	Generation  int
	Stream      string
	Text        string
}
