package registry

import (
	"testing"
	"time"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/testkit"
)

// TestFalseBrokenWords: a false report that a socket is broken lengthens the wait of the next
// report too.
func TestFalseBrokenWords(t *testing.T) {
	table := New(Config{})
	defer table.Close()
	if _, err := table.Open(testkit.Context(t), "l", netactor.Request{Network: "tcp", Address: "127.0.0.1:0"}); err != nil {
		t.Fatal(err)
	}
	testkit.Until(t, "the socket to be open", func() bool {
		table.mu.Lock()
		defer table.mu.Unlock()
		return !table.busy
	})
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
