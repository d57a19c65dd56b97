package main

import (
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestEmbed: the program has a tree, ends it, and goes on with its own server and
// signals.
func TestEmbed(t *testing.T) {
	p := runtimetest.Start(t, nil)
	p.Await(`^the tree says: +hello from web/[01]$`)
	kids := runtimetest.Children(t, p.PID())
	p.Await(`^the program says: +still here$`)
	p.Await(`^the tree is gone$`)
	for _, pid := range kids {
		if runtimetest.Alive(pid) {
			t.Errorf("process %d is left", pid)
		}
	}
	p.Await(`^the program got: +hangup$`)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}
