package socket

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor/internal/address"
)

// Path returns the path of a Unix socket, as it was asked for; empty if it has no file of ours.
func (s *Bound) Path() string { return s.path }

// Readopt takes ownership of fd, a socket that the image of the program before this one had in a
// Bound with that Path, FileID and Kept. It changes nothing of the socket.
func Readopt(fd int, path, fileID, kept string) (*Bound, error) {
	if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	}
	s := &Bound{fd: fd, Kept: kept}
	var dev, ino uint64
	var mode uint32
	if n, err := fmt.Sscanf(fileID, "%x-%x-%o", &dev, &ino, &mode); n < 3 || err != nil || !address.CleanPath(path) {
		return s, nil
	}
	if at, err := openSocketFile(path, "bind"); err == nil { // else the file stays at the end
		at.dev, at.ino, at.mode = dev, ino, fs.FileMode(mode)
		s.path, s.file = path, at
	}
	return s, nil
}
