package liveness

import (
	"testing"
	"time"
)

// TestSilentFromTheFirst: a child that never answers has been silent since it was first watched;
// without that time it would not be shown as hanging.
func TestSilentFromTheFirst(t *testing.T) {
	var a Answers
	ended := make(chan struct{})
	close(ended)
	Watch(Config{Every: time.Hour}, Subject{Ended: ended, Answers: &a})
	if a.At().IsZero() {
		t.Error("there is no time from which it is silent")
	}
}
