package dispatch

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/shm"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// TestPeeksTakeTurns: each round looks at every waiting connection, also a round that takes new
// ones. Under a stream of new clients the waiting ones that had sent their bytes were seen only
// when their time was over.
func TestPeeksTakeTurns(t *testing.T) {
	d := New(Config{})
	p := netactor.Peek{By: netactor.PeekBytes, Bytes: 1}
	l := d.balancer.AddListener(1, wire.Opening{Peek: p}, netactor.Functions{})
	k, err := newPeeker(&acceptor{dispatcher: d, listener: l}, p, netactor.Functions{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.close()
	var clients []int
	for range 2 {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[0])
		defer unix.Close(fds[1])
		for _, fd := range clients { // the earlier clients send, and one more comes
			if _, err := unix.Write(fd, []byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		clients = append(clients, fds[0])
		tk := &balance.PendingConn{FD: fds[1], Handle: fdipc.HandleFD(fds[1]), At: shm.Monotonic()}
		d.balancer.StartPeek(tk, l, 2)
		k.await([]*balance.PendingConn{tk})
		k.round()
	}
	if n := l.Counts.Peeking; n != 1 {
		t.Errorf("%d are waited for, want the one that has not spoken", n)
	}
}
