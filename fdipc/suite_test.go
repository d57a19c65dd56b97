package fdipc_test

import (
	"testing"

	"github.com/coppice-go/coppice/fdipc"
)

// joiner joins two Conns; the test closes them.
type joiner func(t testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn)

// TestConn is what any link between two Conns must do.
func TestConn(t *testing.T) {
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
	links := []struct {
		name string
		join joiner
	}{
		{"Pipe", func(_ testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) { return fdipc.Pipe(a, b) }},
		{"FaultLink", func(_ testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) {
			return new(fdipc.FaultLink).Join(a, b)
		}},
		{"Socket", joinSocket},
	}
	for _, link := range links {
		for _, tt := range tests {
			t.Run(link.name+"/"+tt.name, func(t *testing.T) {
				check := leaks(t)
				t.Run("", func(t *testing.T) { tt.run(t, link.join) })
				check()
			})
		}
	}
}

func joinSocket(t testing.TB, a, b fdipc.Config) (*fdipc.Conn, *fdipc.Conn) {
	l, r, err := fdipc.Socketpair()
	if err != nil {
		t.Skip(err)
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
}

// kind is that of the tests' frames.
const kind fdipc.Kind = 0x40
