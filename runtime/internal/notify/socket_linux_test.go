package notify

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestDescriptorsAreRefused: descriptors that come with a message (sd_notify(3)'s FDSTORE=1, or
// from a malicious sender) are not accepted, and the message counts.
func TestDescriptorsAreRefused(t *testing.T) {
	s, err := Listen()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	name := strings.TrimPrefix(s.Environ(), "NOTIFY_SOCKET=")
	to := &net.UnixAddr{Name: name, Net: "unixgram"}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"}) // bound to a name that the kernel chooses
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	open := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := open()
	for range 3 {
		if _, _, err := conn.WriteMsgUnix([]byte("READY=1"), syscall.UnixRights(0, 1, 2, 0), to); err != nil {
			t.Fatal(err)
		}
		m, from, err := s.Receive(time.Now().Add(time.Minute))
		if err != nil || !m.Ready || from != (Sender{os.Getpid(), os.Getuid()}) {
			t.Fatalf("%+v from %+v, %v", m, from, err)
		}
	}
	if after := open(); after != before {
		t.Errorf("%d descriptors, %d before", after, before)
	}
}
