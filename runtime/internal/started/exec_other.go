//go:build !linux

package started

import "os"

func execPath() string { return "" }

func ownFile() string {
	path, err := os.Executable()
	if err != nil {
		return os.Args[0]
	}
	return path
}

func captureLimits() {}

// Restore does nothing: a child of the tree is a process only on Linux.
func Restore(string) {}
