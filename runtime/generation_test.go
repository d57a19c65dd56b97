package coppice

import "testing"

// A tree that ends while it is reloaded closes both executables, each once.
func TestGenerationsEndInReload(t *testing.T) {
	for _, done := range []bool{true, false} {
		var gs generations
		open := func() *executable {
			exe, err := openExecutable()
			if err != nil {
				t.Fatal(err)
			}
			return exe
		}
		now := newGeneration(1, open(), nil)
		gs.last, gs.current = 1, now
		next := gs.prepare(open(), nil)
		gs.end()
		gs.finish(done)
		if a, b := now.uses.Load(), next.uses.Load(); a != 0 || b != 0 {
			t.Errorf("settled with %v: %d and %d still hold", done, a, b)
		}
	}
}
