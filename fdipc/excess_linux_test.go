package fdipc

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc/internal/claims"
	"golang.org/x/sys/unix"
)

// hostile returns the receiver of one end of a channel whose peer does what the test says.
func hostile(t *testing.T) *receiver {
	t.Helper()
	local, remote, err := Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remote.Close() })
	c, err := New(local, Config{
		Handler: func(*Conn, *Frame) {}, Credits: 8, HandshakeTimeout: -1, assemblyTick: time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.peer = claims.New(make([]uint64, claims.Len(8)))
	return &receiver{c: c, endpoint: c.control}
}

// send has the receiver take a piece of a frame that goes on, with n descriptors, and
// returns them.
func (r *receiver) send(t *testing.T, first bool, n int) ([]int, error) {
	t.Helper()
	p := &piece{pieceHeader: pieceHeader{kind: 100, bits: pieceMore | pieceCont, handles: n}, entries: make([]byte, n*entryHead)}
	if first {
		p.bits = pieceMore
	}
	var fds []int
	var g []attachment
	for range n {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		fds, g = append(fds, fd), append(g, attachment{fd: fd})
	}
	return fds, r.handlePiece(p, g)
}

// open returns how many of fds are open, when as many are as there should be, or never will.
func open(t *testing.T, fds []int, want int) (n int) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); runtime.Gosched() {
		if n = opened(fds); n == want {
			break
		}
	}
	return n
}

func opened(fds []int) (n int) {
	for _, fd := range fds {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil {
			n++
		}
	}
	return n
}

// TestFrameOfTooManyHandles: a frame that never becomes whole holds no more descriptors
// than the peer's credits allow; the peer is cut off with its next, and nothing stays open.
func TestFrameOfTooManyHandles(t *testing.T) {
	r := hostile(t)
	first, err := r.send(t, true, 8)
	if err != nil || opened(first) != 8 {
		t.Fatalf("%d of 8 open, error %v", opened(first), err)
	}
	more, err := r.send(t, false, 1)
	if n := open(t, more, 0); !errors.Is(err, ErrExcess) || n != 0 {
		t.Errorf("%d more open, error %v, want ErrExcess", n, err)
	}
	r.parts[Control].drop()
	if n := open(t, first, 0); n != 0 {
		t.Errorf("%d open after the frame was given up", n)
	}
}

// TestUnclaimedHandlesAreRefusedAtOnce: beyond what one peer may hold here unclaimed,
// descriptors are closed as they come, not when their frame is whole.
func TestUnclaimedHandlesAreRefusedAtOnce(t *testing.T) {
	r := hostile(t)
	r.c.maxHeld = 2
	fds, err := r.send(t, true, 4)
	if err != nil {
		t.Fatal(err)
	}
	if n := open(t, fds, 0); n != 0 {
		t.Errorf("%d of 4 open", n)
	}
	r.parts[Control].drop()
}

// TestFrameThatDoesNotBecomeWhole: its peer is cut off when its time is over.
func TestFrameThatDoesNotBecomeWhole(t *testing.T) {
	r := hostile(t)
	if _, err := r.send(t, true, 0); err != nil {
		t.Fatal(err)
	}
	<-r.c.Done()
	if !errors.Is(r.c.Err(), ErrExcess) {
		t.Errorf("error %v, want ErrExcess", r.c.Err())
	}
}

// TestLongFrameForControl: a frame of the control lane, which is for small ones, has 4 MiB at
// most, at the sender and at the receiver, which keeps no more of one that does not end.
func TestLongFrameForControl(t *testing.T) {
	r := hostile(t)
	f := &Frame{Kind: 100, Payload: make([]byte, maxControl+1)}
	if err := r.c.TrySend(f); !errors.Is(err, ErrTooBig) {
		t.Errorf("sent: %v, want ErrTooBig", err)
	}
	if f.Lane = Data; errors.Is(r.c.TrySend(f), ErrTooBig) {
		t.Error("it is too big for the data lane")
	}
	p := &piece{pieceHeader: pieceHeader{kind: 100, bits: pieceMore}, payload: make([]byte, maxControl/2)}
	for i := range 2 {
		if err := r.handlePiece(p, nil); err != nil {
			t.Fatalf("piece %d: %v", i, err)
		}
		p.bits = pieceMore | pieceCont
	}
	if err := r.handlePiece(p, nil); err == nil || !strings.Contains(err.Error(), "frame of more than 4194304 bytes") {
		t.Errorf("beyond the bound: %v", err)
	}
	r.parts[Control].drop()
}

// TestShareOfDescriptors: one peer may hold an eighth of a process's descriptors, or its
// credits, and never more than four times these.
func TestShareOfDescriptors(t *testing.T) {
	if got, most := maxHeld(8), int64(4*8); got > most || got < 8 {
		t.Errorf("of 8 credits: %d, want 8 to %d", got, most)
	}
	if got, most := maxHeld(maxCredits), int64(max(maxCredits, maxFiles()/fileShare)); got > most {
		t.Errorf("of %d credits: %d, want at most %d", maxCredits, got, most)
	}
}

// TestFrameInTime has a frame that came whole cost nothing later, and one that does not the Conn.
func TestFrameInTime(t *testing.T) {
	r := hostile(t)
	r.c.cfg.assemblyTick = time.Hour // the test ticks
	late := func() error {
		for range assemblyTicks {
			r.parts[Control].assembly.tick(r.c)
		}
		return r.c.Err()
	}
	for range 2 {
		if _, err := r.send(t, true, 0); err != nil {
			t.Fatal(err)
		}
		last := &piece{pieceHeader: pieceHeader{kind: 100, bits: pieceCont}, payload: []byte{1}}
		if err := r.handlePiece(last, nil); err != nil {
			t.Fatal(err)
		}
		if err := late(); err != nil {
			t.Fatalf("after a whole frame: %v", err)
		}
	}
	if _, err := r.send(t, true, 0); err != nil {
		t.Fatal(err)
	}
	if err := late(); !errors.Is(err, ErrExcess) {
		t.Fatalf("in a frame that does not become whole: %v", err)
	}
}
