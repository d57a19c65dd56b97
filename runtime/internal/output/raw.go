//go:build !windows

package output

import (
	"os"
	"syscall"
)

// WriteRaw writes b to f without os.File.Write. That would end the program when the pipe at its
// standard output has lost its reader (os/signal, SIGPIPE), and a lost log reader must not end a
// tree.
func WriteRaw(f *os.File, b []byte) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var werr error
	err = rc.Write(func(fd uintptr) bool {
		for len(b) > 0 {
			n, err := syscall.Write(int(fd), b)
			switch {
			case err == nil:
				b = b[n:]
			case err == syscall.EINTR:
			case err == syscall.EAGAIN:
				return false
			default:
				werr = os.NewSyscallError("write", err)
				return true
			}
		}
		return true
	})
	if err != nil {
		return err
	}
	return werr
}
