package main

import (
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// TestMasterStopped: X6: while the master does nothing connections are served, whatever the policy:
// it takes no part in handing them over.
func TestMasterStopped(t *testing.T) {
	for _, policy := range []string{"round-robin", "shared", "reuseport"} {
		t.Run("X6 "+policy, func(t *testing.T) {
			h := start(t, "-workers", "2", "-quiet", "-policy", policy)
			runtimetest.Freeze(t, h.PID())
			for range 20 {
				h.mustGet("/")
			}
			h.Signal(syscall.SIGCONT)
			h.Signal(syscall.SIGTERM)
			if code := h.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
