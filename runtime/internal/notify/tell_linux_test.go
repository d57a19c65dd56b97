package notify

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const patience = time.Minute

// TestTellerOfOneThatStandsStill: messages for a service manager that stands still wait, up to a
// bound, and reach it in order once it goes on; no caller waits for that.
func TestTellerOfOneThatStandsStill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	fill(t, path)
	tl := NewTeller(path, func(err error) { t.Error(err) })
	const told = 2 * maxTold
	for i := range told {
		tl.Tell(fmt.Sprint(i))
	}
	if tl.Flush(0) {
		t.Fatal("everything is sent, to a socket that nobody reads")
	}
	over := make(chan struct{})
	go func() { // ends when all that waits is sent
		defer close(over)
		if tl.Flush(patience) {
			tl.Tell("over")
		}
	}()
	last, n := -1, 0
	for b := make([]byte, 64); ; n++ {
		if err := manager.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		size, err := manager.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		if string(b[:size]) == "over" {
			break
		}
		if string(b[:size]) == filler {
			n--
			continue
		}
		var i int
		if _, err := fmt.Sscan(string(b[:size]), &i); err != nil || i <= last {
			t.Fatalf("%q came after %d: %v", b[:size], last, err)
		}
		last = i
	}
	<-over
	if n != maxTold {
		t.Errorf("%d of %d arrived, %d may wait", n, told, maxTold)
	}
}

const filler = "full"

// fill sends datagrams to the socket at path until it takes no more from anybody: one by one from
// sockets of their own, as what one socket may have under way is bounded too.
func fill(t *testing.T, path string) {
	for {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		err = syscall.Sendto(fd, []byte(filler), 0, &syscall.SockaddrUnix{Name: path})
		syscall.Close(fd)
		if err == syscall.EAGAIN {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTellerOfNone: each datagram that cannot be sent is reported once.
func TestTellerOfNone(t *testing.T) {
	failures := make(chan error, 1)
	tl := NewTeller(filepath.Join(t.TempDir(), "nobody"), func(err error) { failures <- err })
	tl.Tell("READY=1")
	if err := <-failures; !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	if !tl.Flush(patience) {
		t.Error("it is not over")
	}
}
