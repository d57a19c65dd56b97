package fdipc_test

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
)

// seqpackets are the sockets of Conns that this process has open.
func seqpackets(t *testing.T) (fds []int) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		if typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil && typ == unix.SOCK_SEQPACKET {
			fds = append(fds, fd)
		}
	}
	return fds
}

// Whichever of the sockets of a Conn is shut down, by code that has taken it for its own: both
// sides hear of it, though neither sends anything.
func TestBrokenSocket(t *testing.T) {
	type pair struct {
		what string
		fd   int
		cs   [2]*fdipc.Conn
	}
	var pairs []pair
	const sockets = 6 // of both sides: control, what it sends data on, what it receives data on
	for i := range sockets {
		before := seqpackets(t)
		l, r, err := fdipc.Socketpair()
		if err != nil {
			t.Fatal(err)
		}
		var cs [2]*fdipc.Conn
		ready := make(chan struct{}, 2)
		for side, f := range []*os.File{l, r} {
			cfg := fdipc.Config{Handler: ignore, Ready: func(*fdipc.Conn) { ready <- struct{}{} }}
			if cs[side], err = fdipc.New(f, cfg); err != nil {
				t.Fatal(err)
			}
			defer cs[side].Close()
		}
		wait(t, "handshake", ready)
		wait(t, "handshake", ready)
		own := slices.DeleteFunc(seqpackets(t), func(fd int) bool { return slices.Contains(before, fd) })
		if len(own) != sockets {
			t.Fatalf("sockets %v", own)
		}
		pairs = append(pairs, pair{fmt.Sprintf("socket %d", i), own[i], cs})
	}
	for _, p := range pairs { // none of their numbers is used anew until here
		if err := unix.Shutdown(p.fd, unix.SHUT_RDWR); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range pairs {
		for side, c := range p.cs {
			wait(t, p.what, c.Done())
			if !errors.Is(c.Err(), fdipc.ErrPeerLost) {
				t.Errorf("%s, side %d: %v", p.what, side, c.Err())
			}
		}
	}
}
