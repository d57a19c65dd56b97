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
	attrs := []slog.Attr{slog.String("name", i.Name), slog.String("role", i.role)}
	if i.ID != 0 {
		attrs = append(attrs, slog.Int("id", i.ID))
	}
	if i.PID != 0 {
		attrs = append(attrs, slog.Int("pid", i.PID))
	}
	return slog.GroupValue(attrs...)
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
