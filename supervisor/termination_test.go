package supervisor

import "testing"

// TestTermination: an instance ends once, with its first reason, and every function that waits for
// that is called, also one that comes after.
func TestTermination(t *testing.T) {
	var end Termination
	called := 0
	end.onDone(func() { called++ })
	select {
	case <-end.Done():
		t.Fatal("it has ended before")
	default:
	}
	leaked := make(chan struct{})
	end.Terminate(Reason{Kind: Killed}, leaked)
	end.Terminate(Reason{}, nil)
	<-end.Done()
	end.onDone(func() { called++ })
	if called != 2 || end.Reason().Kind != Killed || end.Leaked() != (<-chan struct{})(leaked) {
		t.Errorf("%d calls, reason %v, leaked %v", called, end.Reason(), end.Leaked())
	}
}
