package coppice

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestAbortWaitsForCoreDump: a process that was told to abort is killed when its time is over, but
// not while the kernel writes its core dump, unless that never ends.
func TestAbortWaitsForCoreDump(t *testing.T) {
	const grace = 5 * time.Second
	for _, tt := range []struct {
		name        string
		end, dumped time.Duration // when it ends, and when its dump is written; 0 = never
		ended       bool
		after       time.Duration
	}{
		{"it ends", time.Second, 0, true, time.Second},
		{"it does not end", 0, 0, false, grace},
		{"a small dump", 4 * time.Second, 4 * time.Second, true, 4 * time.Second},
		{"a large dump", 59500 * time.Millisecond, time.Minute, true, 59500 * time.Millisecond},
		{"a dump, and no end", 0, 7500 * time.Millisecond, false, 8 * time.Second},
		{"a dump without an end", 0, time.Hour, false, maxCoreDump},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began, ended := time.Now(), make(chan struct{})
				if tt.end > 0 {
					time.AfterFunc(tt.end, func() { close(ended) })
				}
				got := endsAfterAbort(ended, grace, func() bool { return time.Since(began) < tt.dumped })
				if after := time.Since(began); got != tt.ended || after != tt.after {
					t.Errorf("ended %v after %v, want %v after %v", got, after, tt.ended, tt.after)
				}
			})
		})
	}
}
