package netactor_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// connects dials, and closes the connection.
func connects(network, address string) error {
	c, err := net.Dial(network, address)
	if err == nil {
		c.Close()
	}
	return err
}

// portOf returns the port of an address.
func portOf(t *testing.T, address string) int {
	t.Helper()
	_, p, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	n, _ := strconv.Atoi(p)
	return n
}

// stranger is a user that is neither root nor this process's user.
const stranger = 54321

// asRoot skips the test if it cannot give a file to another user.
func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can make files of another user")
	}
}

// directories returns a directory of another user, and one of root with a file in it.
func directories(t *testing.T) (theirs, roots, file string) {
	t.Helper()
	dir := t.TempDir()
	theirs, roots = filepath.Join(dir, "theirs"), filepath.Join(dir, "roots")
	for _, d := range []string{theirs, roots} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file = filepath.Join(roots, "shadow")
	if err := os.WriteFile(file, []byte("root's own"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(theirs, stranger, stranger); err != nil {
		t.Fatal(err)
	}
	return theirs, roots, file
}

// logLines is a log that hands its messages to a test.
type logLines chan string

// Enabled is of slog.Handler: every level is.
func (l logLines) Enabled(context.Context, slog.Level) bool { return true }

// handleOf is of slog.Handler: it passes the message on.
func (l logLines) Handle(_ context.Context, r slog.Record) error {
	l <- r.Message
	return nil
}

// WithAttrs is of slog.Handler.
func (l logLines) WithAttrs([]slog.Attr) slog.Handler { return l }

// WithGroup is of slog.Handler.
func (l logLines) WithGroup(string) slog.Handler { return l }

// Next waits for the next message that begins with begin.
func (l logLines) Next(t *testing.T, begin string) {
	t.Helper()
	ctx := testContext(t)
	for {
		select {
		case m := <-l:
			if strings.HasPrefix(m, begin) {
				return
			}
		case <-ctx.Done():
			t.Fatalf("not told: %s", begin)
		}
	}
}

// noDescriptors leaves this process without free descriptors, until the returned function is
// called.
func noDescriptors(t *testing.T) (over func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	free, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0) // the lowest free number
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(free)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(free), Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	over = func() { _ = unix.Setrlimit(unix.RLIMIT_NOFILE, &old) }
	t.Cleanup(over)
	return over
}
