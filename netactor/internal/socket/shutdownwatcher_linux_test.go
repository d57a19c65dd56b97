package socket

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
)

// The watch for shutdowns costs nothing: a connection wakes no goroutine in the master.
func TestWatchSleeps(t *testing.T) {
	told := make(chan uint64, 10)
	w, err := NewShutdownWatcher(func(number uint64) { told <- number })
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(SocketSpec{Request: netactor.Request{Network: "tcp4", Address: "127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	w.Add(s, 7)
	ended := make(chan struct{})
	go func() { w.Run(); close(ended) }()
	_, addr, _ := s.Address()
	for range 50 {
		if err := connects("tcp", addr); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(told); n != 0 {
		t.Errorf("told %d times of connections", n)
	}
	_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
	<-told
	w.Remove(s)
	w.Close()
	<-ended
	if n := len(told); n != 0 {
		t.Errorf("told %d times more of one shutdown", n)
	}
}
