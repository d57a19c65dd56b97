package coppice

import (
	"os"
	"path/filepath"
	"slices"
)

// The state in which this program was started, before its main could change it. Its children start
// in the same state at any time.
var (
	startedArgs       = slices.Clone(os.Args)
	startedDir, _     = os.Getwd() // as the shell called it, symbolic links included
	startedDirInfo, _ = os.Stat(".")
)

// workingDir returns the directory in which a child starts; "" is the master's present directory.
// If a program has changed its directory since its start, as daemons do, its children start where
// it started.
func workingDir(dir string) string {
	if filepath.IsAbs(dir) || startedDir == "" || startedDirInfo == nil {
		return dir
	}
	if now, err := os.Stat("."); err == nil && os.SameFile(now, startedDirInfo) {
		return dir
	}
	return filepath.Join(startedDir, dir)
}
