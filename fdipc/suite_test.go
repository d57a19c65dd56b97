package fdipc_test

import (
	"testing"

	"github.com/coppice-go/coppice/fdipc"
)

// joiner joins two Conns; the suite closes them.
type joiner func(t testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn)

// conformance is the conformance suite: what any link between two Conns must do.
func conformance(t *testing.T, join joiner) {
	tests := []struct {
		name string
		run  func(*testing.T, joiner)
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
			check := leaks(t)
			t.Run("", func(t *testing.T) { tt.run(t, join) })
			check()
		})
	}
}

// user kinds of the suite
const kind fdipc.Kind = 0x40

func TestPipe(t *testing.T) {
	conformance(t, func(_ testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) { return fdipc.Pipe(a, b) })
}

func TestLink(t *testing.T) {
	conformance(t, func(_ testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) {
		return new(fdipc.FaultLink).Join(a, b)
	})
}

func TestSocket(t *testing.T) {
	l, r, err := fdipc.Socketpair()
	if err != nil {
		t.Skip(err)
	}
	l.Close()
	r.Close()
	conformance(t, func(t testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) {
		l, r, err := fdipc.Socketpair()
		if err != nil {
			t.Fatal(err)
		}
		ca, err := fdipc.New(l, a)
		if err != nil {
			t.Fatal(err)
		}
		cb, err := fdipc.New(r, b)
		if err != nil {
			t.Fatal(err)
		}
		return ca, cb
	})
}
