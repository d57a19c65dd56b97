package process

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
)

// TestLookThatHangs: a file system that does not answer holds up neither whoever asks,
// longer than it wants, nor more than one thread however often it is asked.
func TestLookThatHangs(t *testing.T) {
	answer, looks := make(chan struct{}), atomic.Int64{}
	look := func() {
		looks.Add(1)
		<-answer
	}
	name := filepath.Join(t.TempDir(), "hangs")
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 3 {
		if err := Answered(gone, name, look); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	close(answer)
	if err := Answered(t.Context(), name, look); err != nil {
		t.Error(err)
	}
	if n := looks.Load(); n > 2 { // the last may have found the first still there, or not
		t.Errorf("%d looks", n)
	}
	missing := Command{Path: "/nonexistent", Args: []string{"x"}, Dir: os.DevNull}
	if err := Reachable(t.Context(), missing); err != nil { // it answers: what is wrong is for exec to say
		t.Error(err)
	}
}
