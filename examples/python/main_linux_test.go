package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/examples/examplestest"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func TestMain(m *testing.M) { runtimetest.Main(m, main) }

// TestPython: the processes are reloaded and killed under load: no client is refused, and none is
// cut by a reload, nor by one that fails. With COPPICE_SOAK there are 50 reloads, and a kill each
// 500 ms for 25 s.
func TestPython(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("there is no python3")
	}
	script := filepath.Join(t.TempDir(), "server.py")
	write := func(more string) {
		b, err := os.ReadFile("server.py")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(script, append([]byte(more), b...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("")
	p := examplestest.StartPrograms(t, "-addr", "127.0.0.1:0", "-script", script)
	p.Reload(func() {
		write("raise SystemExit('a new bug')\n") // the processes before stay
		p.P.Signal(syscall.SIGHUP)
		p.Await("reload failed", 1)
		write("")
	})
	p.Kill()
	p.End()
}
