// Package output carries the output of the tree's processes to the writer.
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
