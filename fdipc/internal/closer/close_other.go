//go:build !linux

package closer

import "os"

func closeAll(xs []Item, _ bool) {
	for i := range xs {
		xs[i].Close()
	}
}

// FD closes any descriptor. It may wait.
func FD(fd int) { os.NewFile(uintptr(fd), "").Close() }
