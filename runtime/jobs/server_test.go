package jobs

import "testing"

// TestDirs: runs of callers in several processes have directories of their own.
func TestDirs(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range []run{{ID: "0/1", Run: 1}, {ID: "1/1", Run: 1}, {ID: "1/1", Run: 2}, {ID: "1/11", Run: 1}, {ID: "11/1", Run: 1}} {
		if seen[m.dir()] {
			t.Errorf("%q of two runs", m.dir())
		}
		seen[m.dir()] = true
	}
}
