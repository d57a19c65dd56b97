package main

import (
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestStories: each story goes as told.
func TestStories(t *testing.T) {
	if testing.Short() {
		t.Skip("the stories take their time")
	}
	for _, s := range stories {
		t.Run(s.name, func(t *testing.T) {
			p := runtimetest.Start(t, nil, s.name)
			if code := p.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
	if code := runtimetest.Start(t, nil, "nonsense").Wait(); code != 2 {
		t.Errorf("exit code %d of a story that is none, want 2", code)
	}
}
