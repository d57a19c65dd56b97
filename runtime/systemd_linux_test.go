package coppice

import (
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/notify"
)

// TestSystemdWaitsForTheStart: systemd is asked to wait while children start, and no longer.
func TestSystemdWaitsForTheStart(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	m := &serviceManager{teller: notify.NewTeller(path, func(err error) { t.Error(err) })}
	started := m.starting(time.Millisecond, 0)
	b := make([]byte, 4096)
	read := func() string {
		t.Helper()
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	const want = "EXTEND_TIMEOUT_USEC=30000000\nSTATUS=starting"
	for range 2 {
		if got := read(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	started()
	m.teller.Tell("READY=1")
	for got := read(); got != "READY=1"; got = read() {
		if got != want {
			t.Errorf("got %q", got)
		}
	}
	m.starting(time.Hour, time.Hour)()
	if got := read(); got != want+"\nWATCHDOG=1" {
		t.Errorf("in the trial of an upgrade: %q", got)
	}
	m.teller.Flush(time.Minute)
	_ = conn.SetReadDeadline(time.Now())
	if n, err := conn.Read(b); err == nil {
		t.Errorf("after READY=1: %q", b[:n])
	}
}
