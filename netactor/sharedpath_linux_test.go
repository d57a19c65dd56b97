package netactor_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/coppice-go/coppice/netactor"
)

// TestSharedPath: of a socket that a worker shares, the master removes the path only if a socket of
// that worker's user is there, reached without a link of another user.
func TestSharedPath(t *testing.T) {
	asRoot(t)
	theirs, roots, file := directories(t)
	for _, tt := range []struct {
		name  string
		path  string
		swap  func(path string) error
		stays bool
	}{
		{"honest", filepath.Join(roots, "s"), func(string) error { return nil }, false},
		{"a link in its directory's place", filepath.Join(theirs, "d", "shadow"), func(path string) error {
			d := filepath.Dir(path)
			return errors.Join(os.Rename(d, d+".away"), os.Symlink(roots, d), os.Lchown(d, stranger, stranger))
		}, true},
		{"a file in its place", filepath.Join(theirs, "f"), func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path, nil, 0o600))
		}, true},
		{"another user's socket in its place", filepath.Join(theirs, "g"), func(path string) error {
			return os.Chown(path, stranger, stranger)
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_ = os.Mkdir(filepath.Dir(tt.path), 0o755)
			ln, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: tt.path})
			if err != nil {
				t.Fatal(err)
			}
			ln.SetUnlinkOnClose(false)
			if err := tt.swap(tt.path); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { // once the tree is closed
				if _, err := os.Lstat(tt.path); (err == nil) != tt.stays {
					t.Errorf("%s: %v", tt.path, err)
				}
				if _, err := os.Lstat(file); err != nil {
					t.Error(err)
				}
			})
			tr := newTree(t, false)
			shared, err := tr.worker(0).ls.Share(testContext(t), netactor.Request{Name: "x"}, ln)
			if err != nil {
				t.Fatal(err)
			}
			number := tr.table.Sockets()[0].Number
			if !tr.table.Remove(number) {
				t.Fatal("no such socket")
			}
			_ = shared.Close()
			until(t, "closed", func() bool { return len(tr.table.Sockets()) == 0 })
		})
	}
}
