package socket

import (
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/testkit"
)

// The watch for shutdowns costs nothing: a connection wakes no goroutine in the master.
func TestWatchSleeps(t *testing.T) {
	var told atomic.Int64
	w, err := NewShutdownWatcher(func(uint64) { told.Add(1) })
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
		if err := testkit.Connects("tcp", addr); err != nil {
			t.Fatal(err)
		}
	}
	if n := told.Load(); n != 0 {
		t.Errorf("told %d times of connections", n)
	}
	_ = unix.Shutdown(s.fd, unix.SHUT_RDWR)
	testkit.Until(t, "the hang-up", func() bool { return told.Load() > 0 })
	w.Remove(s)
	w.Close()
	<-ended
	if n := told.Load(); n != 1 {
		t.Errorf("told %d times of one shutdown", n)
	}
}
