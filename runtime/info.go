package coppice

import (
	"fmt"
	"log/slog"

	"github.com/coppice-go/coppice/runtime/internal/cgroup"
)

// info is what a snapshot shows of a child of the tree.
type info struct {
	role Role
	Identity
	relinked int
	requests uint64         // that it has served
	status   string         // of another program: what it says that it does
	group    *cgroup.Cgroup // nil = none of its own
}

// LogValue returns the child as the log shows it.
func (i info) LogValue() slog.Value {
	return slog.GroupValue(append(i.logGroup().Value.Group(), slog.String("role", string(i.role)))...)
}

// String returns one line.
func (i info) String() string {
	s := string(i.role)
	if i.ID != 0 {
		s += fmt.Sprintf(" #%d", i.ID)
	}
	if i.PID != 0 {
		s += fmt.Sprintf(" pid %d", i.PID)
	}
	return s
}
