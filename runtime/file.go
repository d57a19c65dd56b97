package coppice

import (
	"fmt"
	"os"
	"strings"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// File returns an open file that the worker's pool gives it by that name
// ([Environment.Files]), owned by the caller: each call returns another descriptor
// of the one open file. An unknown name is an error that wraps ENOENT.
func (w *Worker) File(name string) (*os.File, error) {
	for i, n := range inheritedFiles() {
		if n == name {
			return dupFile(firstFile+i, name)
		}
	}
	return nil, fmt.Errorf("coppice: file %q: %w", name, os.ErrNotExist)
}

// inheritedFiles are the names of the descriptors that this process was given,
// from firstFile on.
func inheritedFiles() []string {
	v, _ := fdipc.InheritedVar(childproto.FilesVar)
	if v == "" {
		return nil
	}
	return strings.Split(v, ":")
}

func init() { // before anything of the user's can start a process
	// Not by IsChild: that takes the channel, which may be for somebody else.
	if _, ok := fdipc.InheritedVar(childproto.FilesVar); ok {
		keepFiles(len(inheritedFiles()))
		keepName()
	}
}
