package dispatch

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/balance"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// TestUntried: only the end of the probe lets another connection be the probe. One that was
// accepted before its key was refused, and comes back, took all probes of that key away.
func TestUntried(t *testing.T) {
	d := New(Config{})
	conn := func() *balance.PendingConn {
		p := &balance.PendingConn{First: "lines: poison"}
		d.judge(p)
		return p
	}
	early := conn()
	d.Guard("web", []Guarded{{Key: "lines: poison"}})
	d.untried(early)
	d.Guard("web", []Guarded{{Key: "lines: poison", Probe: 1, Worker: 7}})
	probe := conn()
	if probe.OnlyTo != 7 {
		t.Fatalf("no probe goes to the worker: %+v", probe)
	}
	d.untried(early)
	if p := conn(); p.OnlyTo != 0 || p.Peek != balance.PeekRefused {
		t.Errorf("a second probe: %+v", p)
	}
	d.untried(probe)
	if p := conn(); p.OnlyTo != 7 {
		t.Errorf("the probe came back, and there is no other: %+v", p)
	}
}

// TestRefusedLast: a parked connection that is refused is closed although its listener, which has
// ended, is gone with it; also if the worker that gave it back has a copy.
func TestRefusedLast(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	kept, err := unix.Dup(fds[1])
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(kept)
	d := New(Config{})
	l := d.balancer.AddListener(1, wire.Opening{}, netactor.Functions{})
	d.acceptors[1] = &acceptor{dispatcher: d, listener: l, ended: true, idle: make(chan struct{})}
	p := &balance.PendingConn{FD: fds[1], Handle: fdipc.HandleFD(fds[1]), Parked: true}
	d.balancer.Park(p, l)
	p.Peek = balance.PeekRefused
	d.resume(new(actions), p)
	if n, err := unix.Read(fds[0], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the client sees %d, %v", n, err)
	}
	if len(d.acceptors) != 0 || !l.Counts.Balanced() {
		t.Errorf("%d listeners; %+v", len(d.acceptors), l.Counts)
	}
}
