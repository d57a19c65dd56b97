package faults

import (
	"testing"
	"time"
)

func TestLogLimiter(t *testing.T) {
	var l LogLimiter
	now := time.Unix(0, 0)
	passed := 0
	for range 1000 {
		if _, ok := l.pass("a", now); ok {
			passed++
		}
	}
	if _, ok := l.pass("b", now); !ok || passed != maxLines {
		t.Errorf("%d passed; another kind: %v", passed, ok)
	}
	if held, ok := l.pass("a", now.Add(linesPeriod)); !ok || held != 1000-maxLines {
		t.Errorf("after the period: %v, %d held back", ok, held)
	}
}
