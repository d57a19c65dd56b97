package coppice

import (
	"fmt"
	"os"
	"strings"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/started"
)

// File returns an open file that the worker's pool has under that name ([Environment.Files]), owned
// by the caller. Each call returns another descriptor of the same open file. For an unknown name
// the error wraps ENOENT.
func (w *Worker) File(name string) (*os.File, error) {
	for i, n := range inheritedFiles() {
		if n == name {
			return dupFile(firstFile+i, name)
		}
	}
	return nil, fmt.Errorf("coppice: file %q: %w", name, os.ErrNotExist)
}

// inheritedFiles returns the names of the descriptors that this process inherited, from firstFile
// on.
func inheritedFiles() []string {
	v, _ := fdipc.InheritedVar(childproto.FilesVar)
	if v == "" {
		return nil
	}
	return strings.Split(v, ":")
}

func init() { // before user code can start a process
	// Not by IsChild: IsChild takes the channel, which may belong to other code.
	if _, ok := fdipc.InheritedVar(childproto.FilesVar); !ok {
		started.Capture()
		return
	}
	keepFiles(len(inheritedFiles()))
	keepName()
	state, _ := fdipc.InheritedVar(childproto.StartedVar)
	started.Restore(state)
}
