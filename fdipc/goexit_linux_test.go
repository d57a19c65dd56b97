package fdipc_test

import (
	"runtime"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
)

// TestHandlerExits: a Handler that ends its goroutine ends the Conn, on both sides, and no sender
// waits for a reader that is gone.
func TestHandlerExits(t *testing.T) {
	for _, l := range []fdipc.Lane{fdipc.Control, fdipc.Data} {
		a, b := pair(t, fdipc.Config{Handler: ignore}, fdipc.Config{Handler: func(*fdipc.Conn, *fdipc.Frame) { runtime.Goexit() }})
		if err := a.Send(t.Context(), &fdipc.Frame{Kind: 64, Lane: l}); err != nil {
			t.Fatal(err)
		}
		wait(t, "end of the side whose handler exits", b.Done())
		wait(t, "end of the other", a.Done())
	}
}
