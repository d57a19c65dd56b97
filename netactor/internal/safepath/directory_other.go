//go:build !linux

package safepath

import (
	"io/fs"
	"os"
)

// OpenFile is os.OpenFile here.
func OpenFile(path string, flag int, perm fs.FileMode) (*os.File, error) {
	return os.OpenFile(path, flag, perm)
}
