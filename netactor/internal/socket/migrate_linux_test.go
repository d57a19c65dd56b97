package socket

import (
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
)

// The close of one of several sockets on a port resets the connections in its backlog, unless
// net.ipv4.tcp_migrate_req makes the kernel give them to the other sockets. The test sets it in a
// separate network namespace.
func TestReusePortMigrates(t *testing.T) {
	done := make(chan struct{})
	go func() { // its thread ends with it: it is not to be used for anything else
		defer close(done)
		runtime.LockOSThread()
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Logf("not tested: needs the right to make a network namespace: %v", err)
			return
		}
		loopbackUp(t)
		const file = "/proc/sys/net/ipv4/tcp_migrate_req"
		for _, on := range []bool{false, true} {
			value := "0"
			if on {
				value = "1"
			}
			if err := os.WriteFile(file, []byte(value), 0); err != nil {
				t.Logf("not tested: %v", err)
				return
			}
			if got := Migrates(); got != on {
				t.Errorf("migrates() is %v, want %v", got, on)
			}
			r := netactor.Request{Network: "tcp4", Address: "127.0.0.1:0", Policy: netactor.ReusePort}
			a := opened(t, r)
			_, r.Address, _ = a.Address()
			b := openedSpec(t, SocketSpec{Request: r, Joins: true})
			const n = 40
			for range n {
				dialHere(t, r.Address)
			}
			queued := func(s *Bound) int {
				ti, err := unix.GetsockoptTCPInfo(s.fd, unix.IPPROTO_TCP, unix.TCP_INFO)
				if err != nil {
					t.Error(err)
				}
				return int(ti.Unacked)
			}
			lost := queued(b)
			if queued(a)+lost != n || lost == 0 {
				t.Errorf("backlogs of %d and %d", queued(a), lost)
			}
			b.Close()
			if want := n - lost; on && queued(a) != n || !on && queued(a) != want {
				t.Errorf("migrate %v: %d in the backlog that is left, %d were in the one closed", on, queued(a), lost)
			}
			a.Close()
		}
	}()
	<-done
}

// dialHere connects in the network of this thread.
func dialHere(t *testing.T, address string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: portOf(t, address), Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Error(err)
	}
}

func loopbackUp(t *testing.T) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		t.Error(err)
		return
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr); err != nil {
		t.Error(err)
	}
}
