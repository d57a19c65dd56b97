package coppice

import (
	"fmt"
	"log/slog"
)

// Roles of workers without a slot: a worker waits for a slot, is being started for a slot, or has
// had one.
const (
	roleSpare     = "spare"
	roleCandidate = "candidate"
	roleDraining  = "draining"
)

// info is what a snapshot shows of a child of the tree.
type info struct {
	role string
	Identity
	relinked int
}

// LogValue returns the child as the log shows it.
func (i info) LogValue() slog.Value {
	return slog.GroupValue(append(i.logGroup().Value.Group(), slog.String("role", i.role))...)
}

// String returns one line.
func (i info) String() string {
	s := i.role
	if i.ID != 0 {
		s += fmt.Sprintf(" #%d", i.ID)
	}
	if i.PID != 0 {
		s += fmt.Sprintf(" pid %d", i.PID)
	}
	return s
}
