package fdipctest

import (
	"testing"

	"github.com/coppice-go/coppice/fdipc"
)

// Join joins two Conns; the suite closes them.
type Join func(t testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn)

// TestConn is the conformance suite: what any link between two Conns must do.
func TestConn(t *testing.T, join Join) {
	tests := []struct {
		name string
		run  func(*testing.T, Join)
	}{
		{"Fields", testFields},
		{"Order", testOrder},
		{"LargeFrames", testLargeFrames},
		{"LargeFrameWithHandle", testLargeFrameWithHandle},
		{"HandleBelongsToFrame", testHandleBelongsToFrame},
		{"ManyHandles", testManyHandles},
		{"Claimed", testClaimed},
		{"Refused", testRefused},
		{"ResolvedAt", testResolvedAt},
		{"ReturnedOnDeadline", testReturnedOnDeadline},
		{"ReturnedOnClose", testReturnedOnClose},
		{"ReturnedOnPeerClose", testReturnedOnPeerClose},
		{"NoDeadline", testNoDeadline},
		{"PeerGone", testPeerGone},
		{"ClaimAfterClose", testClaimAfterClose},
		{"SentTwice", testSentTwice},
		{"SentOn", testSentOn},
		{"CrossFire", testCrossFire},
		{"Full", testFull},
		{"ControlOvertakes", testControlOvertakes},
		{"NoCredit", testNoCredit},
		{"Limits", testLimits},
		{"Close", testClose},
		{"CloseInHandler", testCloseInHandler},
		{"ConcurrentSend", testConcurrentSend},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			check := Leaks(t)
			t.Run("", func(t *testing.T) { tt.run(t, join) })
			check()
		})
	}
}

// user kinds of the suite
const kind fdipc.Kind = 0x40
