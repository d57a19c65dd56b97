package registry

import (
	"runtime"
	"testing"
	"time"

	"github.com/coppice-go/coppice/netactor"
)

// settle waits until a Table has done what it has to do: a goroutine that comes while another works
// leaves its part to that one.
func settle(table *Table) {
	for idle := false; !idle; runtime.Gosched() {
		table.mu.Lock()
		idle = !table.busy
		table.mu.Unlock()
	}
}

// TestFalseBrokenWords: a false report that a socket is broken lengthens the wait of the next
// report too.
func TestFalseBrokenWords(t *testing.T) {
	table := New(Config{})
	defer table.Close()
	if _, err := table.Open(t.Context(), "l", netactor.Request{Network: "tcp", Address: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	settle(table)
	table.repair(1)
	r := table.repairs[1]
	for _, want := range []time.Duration{2 * firstRepair, 4 * firstRepair, 8 * firstRepair} {
		r.last = r.last.Add(-r.pause) // the pause is over
		table.repair(1)
		if r.pause != want {
			t.Errorf("pause %v, want %v", r.pause, want)
		}
	}
}
