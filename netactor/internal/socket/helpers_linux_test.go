package socket

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"testing"
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

// makeLink makes name a symbolic link to a path, owned by a user.
func makeLink(t *testing.T, to, name string, uid int) {
	t.Helper()
	if err := errors.Join(os.Symlink(to, name), os.Lchown(name, uid, uid)); err != nil {
		t.Fatal(err)
	}
}
