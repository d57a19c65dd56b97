package stacks

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// TestTrace: an execution trace is one, and one that is too long ends at once with an error.
func TestTrace(t *testing.T) {
	b, err := Profile(t.Context(), Trace, 0, time.Millisecond)
	if err != nil || !bytes.HasPrefix(b, []byte("go 1.")) {
		t.Errorf("got %.20q, %v", b, err)
	}
	done := make(chan struct{})
	defer close(done)
	go func() { // makes events without end
		for {
			select {
			case <-done:
				return
			default:
				ch := make(chan struct{})
				go close(ch)
				<-ch
			}
		}
	}()
	if b, err := Profile(t.Context(), Trace, 0, MaxProfileTime); err == nil || !strings.Contains(err.Error(), "take one of less time") {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
