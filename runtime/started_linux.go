package coppice

import (
	"os"
	"path/filepath"
	"slices"
)

// How this program was started, before its main could change it: so are its children, whenever they start.
var (
	startedArgs       = slices.Clone(os.Args)
	startedDir, _     = os.Getwd() // as the shell called it, symbolic links included
	startedDirInfo, _ = os.Stat(".")
)

// workingDir returns the directory that a child is to start in; "" is the one that the master is in. A program that
// has gone elsewhere since its start, as daemons do, has children that begin where it began.
func workingDir(dir string) string {
	if filepath.IsAbs(dir) || startedDir == "" || startedDirInfo == nil {
		return dir
	}
	if now, err := os.Stat("."); err == nil && os.SameFile(now, startedDirInfo) {
		return dir
	}
	return filepath.Join(startedDir, dir)
}
