package main

import (
	"errors"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if child() {
		return
	}
	if len(os.Args) > 1 && commands[os.Args[1]].rows != nil {
		main() // the tree of a row
		return
	}
	code := m.Run()
	removeBuilt()
	os.Exit(code)
}

// Every row runs, and counts on both sides what it sent.
func TestRows(t *testing.T) {
	tree.workers, tree.inFlight, respawnWorkers = 2, 16, 2
	for _, c := range commands {
		for _, r := range c.rows() {
			t.Run(r.name, func(t *testing.T) {
				res, err := r.run(20 * time.Millisecond)
				if errors.Is(err, errSkip) {
					t.Skip(err)
				}
				if err != nil || res.Value <= 0 || res.CPU <= 0 || res.Unit == "" {
					t.Errorf("%+v, %v", res, err)
				}
			})
		}
	}
}
