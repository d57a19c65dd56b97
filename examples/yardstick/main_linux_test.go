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
	os.Exit(m.Run())
}

// Every row runs, and counts on both sides what it sent.
func TestRows(t *testing.T) {
	for _, rows := range [][]row{handleRows(), messageRows(), roundtripRows()} {
		for _, r := range rows {
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
