package coppice

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// programPath returns the path by which this program was started, with its symbolic links: a reload
// follows them again. The path is made absolute before the working directory changes. If it does
// not lead to this program, because the name was made up, the result is the path of the program's
// file.
func programPath() string {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	path := os.Args[0]
	if !strings.ContainsRune(path, filepath.Separator) {
		if path, err = exec.LookPath(path); err != nil {
			return self
		}
	}
	if path, err = filepath.Abs(path); err != nil {
		return self
	}
	a, errA := os.Stat(path)
	b, errB := os.Stat(self)
	if errA != nil || errB != nil || !os.SameFile(a, b) {
		return self
	}
	return path
}
