package coppice

import (
	"log/slog"
	"strconv"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/output"
)

// Identity says which worker is meant, or which other child of the tree: in a [Event], a
// [CrashReport], an [OutputLine] and a [ReloadError]. A [Tree], the log and the attributes of
// OpenTelemetry have the same numbers.
//
// A name is kept when its process is replaced; ID and PID change. Incarnation and Generation tell
// the processes of one name apart: each has a further incarnation, whether its predecessor died or
// was replaced by a reload or a recycling, and only a reload that succeeds makes a further
// generation.
type Identity struct {
	// Name is the registered name, for example web/0; of a Process, its path; "" =
	// the child is no process.
	Name string `json:"name"`
	// Slot is a worker's place in its pool, from 0; None = it has none. Other children have 0. In
	// JSON only a CrashReport has it.
	Slot int `json:"-" cbor:"slot"`
	// ID is the number of the process in the tree, from 1, never reused; 0 for a Process.
	ID int `json:"id,omitempty"`
	// PID is the kernel's number; 0 = a goroutine, or not started yet.
	PID int `json:"pid,omitempty"`
	// Incarnation counts the processes that have had the name, from 1; 0 for a spare. A pool that
	// is started again counts from 1.
	Incarnation int `json:"incarnation,omitempty"`
	// Generation counts the reloads of the tree, from 1; 0 for a Process.
	Generation int `json:"generation,omitempty"`
}

// Tag returns the prefix of the text where lines of several processes are mixed: web/0#3 g1, the
// name, the ID and the generation.
func (i Identity) Tag() string {
	s := i.Name
	if i.ID != 0 {
		s += "#" + strconv.Itoa(i.ID)
	}
	if i.Generation != 0 {
		s += " g" + strconv.Itoa(i.Generation)
	}
	return s
}

// logGroup returns the fields that are known as the log has them. It is no LogValue, because the
// types that embed an Identity would have it too.
func (i Identity) logGroup() slog.Attr {
	attrs := []slog.Attr{slog.String("name", i.Name)}
	for _, n := range output.Numbers(i.ID, i.PID, i.Incarnation, i.Generation) {
		attrs = append(attrs, slog.Int(n.Name, n.Value))
	}
	return slog.Attr{Key: "process", Value: slog.GroupValue(attrs...)}
}

// isMaster reports whether an operator means the master by a name.
func isMaster(name string) bool {
	return name == "" || name == childproto.MasterName || name == childproto.Address("", childproto.MasterID)
}
