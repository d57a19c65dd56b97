package coppice

import (
	"os"
	"path/filepath"
	"slices"
)

// How this program was started, before its main could change it. Its children start the same way,
// whenever they start.
var (
	startedArgs       = slices.Clone(os.Args)
	startedDir, _     = os.Getwd() // as the shell called it, symbolic links included
	startedDirInfo, _ = os.Stat(".")
)

// workingDir returns the directory that a child starts in; "" is the master's present one. Children of
// a program that has changed its directory since its start, as daemons do, start where it started.
func workingDir(dir string) string {
	if filepath.IsAbs(dir) || startedDir == "" || startedDirInfo == nil {
		return dir
	}
	if now, err := os.Stat("."); err == nil && os.SameFile(now, startedDirInfo) {
		return dir
	}
	return filepath.Join(startedDir, dir)
}
