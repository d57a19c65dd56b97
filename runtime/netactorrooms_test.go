package coppice_test

import (
	"path"
	"slices"
	"strings"
	"testing"
)

// netactorRooms is what each package below netactor may import of the others. The three programs
// know nothing of each other. The root is the vocabulary of all: it imports only packages that do
// not import it.
var netactorRooms = map[string][]string{
	"netactor": {"netactor/internal/address", "netactor/internal/peek", "netactor/internal/safepath"},

	"netactor/listen":   {"netactor", "netactor/internal/address", "netactor/internal/faults", "netactor/internal/inspect", "netactor/internal/shm", "netactor/internal/wire"},
	"netactor/registry": {"netactor", "netactor/internal/address", "netactor/internal/faults", "netactor/internal/inspect", "netactor/internal/socket", "netactor/internal/wire"},
	"netactor/dispatch": {"netactor", "netactor/internal/balance", "netactor/internal/epoll", "netactor/internal/faults", "netactor/internal/inspect", "netactor/internal/peek", "netactor/internal/shm", "netactor/internal/wire"},

	"netactor/internal/address":  nil,
	"netactor/internal/balance":  {"netactor", "netactor/internal/faults", "netactor/internal/shm", "netactor/internal/wire"},
	"netactor/internal/epoll":    nil,
	"netactor/internal/faults":   nil,
	"netactor/internal/inspect":  nil,
	"netactor/internal/peek":     nil,
	"netactor/internal/safepath": nil,
	"netactor/internal/shm":      {"netactor"},
	"netactor/internal/socket":   {"netactor", "netactor/internal/address", "netactor/internal/epoll", "netactor/internal/faults", "netactor/internal/safepath"},
	"netactor/internal/wire":     {"netactor", "netactor/internal/address"},
}

func TestArrowsBetweenRoomsOfNetactor(t *testing.T) {
	seen := map[string]bool{}
	forEachGoFile(t, func(file string, imports []string) {
		room := path.Dir(file)
		if !within(room, "netactor") {
			return
		}
		allowed, known := netactorRooms[room]
		if !known {
			t.Errorf("%s is in no room of the table", file)
		}
		seen[room] = true
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		for _, p := range imports {
			to, ours := strings.CutPrefix(p, module+"/")
			if ours && within(to, "netactor") && !slices.Contains(allowed, to) {
				t.Errorf("%s imports %s, which its room may not", file, to)
			}
		}
	})
	for room := range netactorRooms {
		if !seen[room] {
			t.Errorf("there is no room %s", room)
		}
	}
}
