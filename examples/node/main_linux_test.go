package main

import (
	"os/exec"
	"testing"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestNode: the processes are reloaded and killed under load: no client is refused, and none is cut
// by a reload. With COPPICE_SOAK there are 50 reloads, and a kill each 500 ms for 25 s.
func TestNode(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("there is no node")
	}
	p := examplestest.StartPrograms(t, "-addr", "127.0.0.1:0", "-script", "server.js")
	p.Reload(func() {})
	p.Kill()
	p.End()
}
