package process

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// thing is what a look returns.
type thing struct{ closed chan struct{} }

func (t *thing) Close() error {
	close(t.closed)
	return nil
}

// TestLookThatHangs: a file system that does not answer delays a caller only until its context
// ends, and occupies one thread only, however often it is called. A late result is closed.
func TestLookThatHangs(t *testing.T) {
	answer, looks := make(chan struct{}), atomic.Int64{}
	late := &thing{make(chan struct{})}
	key := filepath.Join(t.TempDir(), "hangs")
	gone, cancel := context.WithCancel(t.Context())
	look := func(at *Look) (*thing, error) {
		at.At("the moon")
		looks.Add(1)
		cancel()
		<-answer
		return late, nil
	}
	for range 3 {
		if _, err := Apart(gone, key, look); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	over, cancelOver := context.WithDeadline(t.Context(), time.Now())
	defer cancelOver()
	if _, err := Apart(over, key, look); !errors.Is(err, syscall.ETIMEDOUT) || !strings.Contains(err.Error(), "the moon") {
		t.Errorf("error %v", err)
	}
	if n := looks.Load(); n != 1 {
		t.Errorf("%d looks", n)
	}
	close(answer)
	now := &thing{make(chan struct{})}
	got, err := Apart(t.Context(), key, func(*Look) (*thing, error) { return now, nil })
	if got != now || err != nil {
		t.Errorf("returned %v, %v, want the result of the look itself", got, err)
	}
	select {
	case <-late.closed: // before the next look began
	default:
		t.Error("what came too late was not closed")
	}
	select {
	case <-now.closed:
		t.Error("what came in time was closed")
	default:
	}
}

// TestReachOfNothing: Reach returns no error of a program that answers: exec does.
func TestReachOfNothing(t *testing.T) {
	Reach(&Look{}, &Command{Path: "/nonexistent", Args: []string{"x"}, Dir: "/dev/null"})
}
