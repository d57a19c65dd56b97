//go:build !linux

package safepath

import (
	"io/fs"
	"os"
)

// OpenFile is os.OpenFile on this system.
func OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	return os.OpenFile(path, flag, perm)
}

// OpenRoot is os.OpenRoot.
func OpenRoot(dir string) (*os.Root, error) { return os.OpenRoot(dir) }
