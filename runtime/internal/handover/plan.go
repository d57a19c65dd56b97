package handover

import (
	"fmt"
	"slices"
	"strings"

	"github.com/coppice-go/coppice/runtime/internal/declaration"
)

// Kinds of children that live on over the exec. The others are stopped, and started again.
var livesOn = []string{"Pool", "Process", "ListenerSpec", "Supervisor", "Config"}

// Plan returns what becomes of the children of a tree when a program that declares to takes over
// from one that declares from, in words: one line for each child that is more than kept, and for
// each value that changes.
func Plan(from, to []string) (lines []string) {
	changes := declaration.Compare(from, to)
	for _, c := range changes {
		switch {
		case c.Name != declaration.Is && slices.Contains(from, declaration.Line(c.Path, declaration.Is, "ListenerSpec")) && staysWithSocket(changes, c):
			lines = append(lines, fmt.Sprintf("%s stays %s until its socket is opened anew: the new program has %s", c.Field, unset(c.From), unset(c.To)))
		case c.Name != declaration.Is:
			lines = append(lines, fmt.Sprintf("%s becomes %s, was %s", c.Field, unset(c.To), unset(c.From)))
		case c.From == "":
			lines = append(lines, fmt.Sprintf("%s (%s) is new: it is started", c.Field, c.To))
		case c.To == "":
			lines = append(lines, fmt.Sprintf("%s (%s) is gone: it is stopped", c.Field, c.From))
		default:
			lines = append(lines, fmt.Sprintf("%s was a %s and is a %s: it is stopped, and started", c.Field, c.From, c.To))
		}
	}
	for _, l := range from {
		path, kind, ok := strings.Cut(l, " "+declaration.Is+" ")
		if ok && !slices.Contains(livesOn, kind) && slices.Contains(to, l) {
			lines = append(lines, fmt.Sprintf("%s (%s) runs in the master: it starts anew, with what it hands over", path, kind))
		}
	}
	return lines
}

// staysWithSocket reports whether a value of a listener does not change because its socket stays
// open: what the kernel has of it, and whether its connections are handed over.
func staysWithSocket(changes []declaration.Change, c declaration.Change) bool {
	field, _, _ := strings.Cut(c.Name, ".")
	stays := slices.Contains([]string{"Backlog", "Mode", "Options"}, field)
	for _, o := range changes {
		switch {
		case o.Path != c.Path:
		case slices.Contains([]string{"Network", "Address", "FD", "SystemdName"}, o.Name):
			return false // it gets another socket
		case o.Name == "Policy":
			stays = stays || !handsOver(o.From) || !handsOver(o.To)
		}
	}
	return stays
}

// handsOver reports whether the listener process accepts under the policy that a declaration names.
func handsOver(policy string) bool { return policy != "shared" && policy != "reuseport" }

func unset(v string) string {
	if v == "" {
		return "unset"
	}
	return v
}
