package coppice

import (
	"fmt"
	"log/slog"
)

// Roles of workers that have no slot: they wait for one, are being started for one, or
// have had one.
const (
	roleSpare     = "spare"
	roleCandidate = "candidate"
	roleDraining  = "draining"
)

// info is what a child of the tree shows of itself in a snapshot.
type info struct {
	role        string
	name        string
	id, pid     int
	generation  int
	incarnation int
	relinked    int
}

// LogValue is how a child shows in the log.
func (i info) LogValue() slog.Value {
	attrs := []slog.Attr{slog.String("name", i.name), slog.String("role", i.role)}
	if i.id != 0 {
		attrs = append(attrs, slog.Int("id", i.id))
	}
	if i.pid != 0 {
		attrs = append(attrs, slog.Int("pid", i.pid))
	}
	return slog.GroupValue(attrs...)
}

// String is one line.
func (i info) String() string {
	s := i.role
	if i.id != 0 {
		s += fmt.Sprintf(" #%d", i.id)
	}
	if i.pid != 0 {
		s += fmt.Sprintf(" pid %d", i.pid)
	}
	return s
}
