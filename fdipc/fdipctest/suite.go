package fdipctest

import (
	"testing"

	"github.com/coppice-go/coppice/fdipc"
)

// Join joins two Conns; the suite closes them.
type Join func(t testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn)

// Lacks says what the link under test does without.
type Lacks uint8

const (
	NoTable Lacks = 1 << iota // claims travel as frames
	NoLane                    // both lanes share a socket and a goroutine
)

// TestConn is the conformance suite: what any link between two Conns must do.
func TestConn(t *testing.T, join Join, lacks Lacks) {
	tests := []struct {
		name  string
		run   func(*testing.T, Join)
		needs Lacks // the test is not for links that lack it
	}{
		{"Fields", testFields, 0},
		{"Order", testOrder, 0},
		{"LargeFrames", testLargeFrames, 0},
		{"LargeFrameWithHandle", testLargeFrameWithHandle, 0},
		{"HandleBelongsToFrame", testHandleBelongsToFrame, 0},
		{"ManyHandles", testManyHandles, 0},
		{"Claimed", testClaimed, 0},
		{"Refused", testRefused, 0},
		{"ResolvedAt", testResolvedAt, NoTable},
		{"ReturnedOnDeadline", testReturnedOnDeadline, NoTable},
		{"ReturnedOnClose", testReturnedOnClose, NoTable},
		{"ReturnedOnPeerClose", testReturnedOnPeerClose, NoTable},
		{"NoDeadline", testNoDeadline, 0},
		{"PeerGone", testPeerGone, 0},
		{"ClaimAfterClose", testClaimAfterClose, 0},
		{"SentTwice", testSentTwice, 0},
		{"SentOn", testSentOn, 0},
		{"CrossFire", testCrossFire, 0},
		{"Full", testFull, 0},
		{"ControlOvertakes", testControlOvertakes, NoLane},
		{"NoCredit", testNoCredit, 0},
		{"Limits", testLimits, 0},
		{"Close", testClose, 0},
		{"CloseWrite", testCloseWrite, 0},
		{"LostAfterCloseWrite", testLostAfterCloseWrite, 0},
		{"CloseInHandler", testCloseInHandler, 0},
		{"ConcurrentSend", testConcurrentSend, 0},
	}
	for _, tt := range tests {
		if tt.needs&lacks != 0 {
			continue
		}
		if lacks == NoTable|NoLane && tt.name == "CrossFire" {
			continue // claims share the one socket with the flood, and a claim waits for the kernel to take it
		}
		t.Run(tt.name, func(t *testing.T) {
			check := Leaks(t)
			t.Run("", func(t *testing.T) { tt.run(t, join) })
			check()
		})
	}
}

// user kinds of the suite
const kind fdipc.Kind = 0x40
