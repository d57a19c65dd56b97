// Package output carries the output of the tree's processes to the writer.
package output

import "time"

// The streams of a process.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// A Line is one line that a process has printed: the runtime's OutputLine, with its Identity.
type Line struct {
	Time        time.Time
	Name        string
	Slot        int
	ID          int
	PID         int
	Incarnation int
	Generation  int
	Stream      string
	Text        string
	Piece       int
	More        bool
	Dump        bool
}
