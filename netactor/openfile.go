package netactor

import (
	"io/fs"
	"os"

	"github.com/coppice-go/coppice/netactor/internal/safepath"
)

// OpenFile is os.OpenFile for a process with more rights than the users that may change the path.
// It follows no symbolic link that a user other than root and this process's own could have made.
// Where another user can add names, it opens only a regular file that has no other name. Off Linux
// it is os.OpenFile.
func OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	return safepath.OpenFile(path, flag, perm)
}

// OpenRoot is os.OpenRoot for such a process: it follows no such link either, and opens no
// directory that belongs to another user than root and this process's own, or that all may write
// to. Off Linux it is os.OpenRoot.
func OpenRoot(dir string) (*os.Root, error) { return safepath.OpenRoot(dir) }
