//go:build !linux

package fdipc

import (
	"net"
	"os"
)

// Socketpair returns [ErrUnsupported]: only Linux passes descriptors as this package needs it.
func Socketpair() (local, remote *os.File, err error) { return nil, nil, ErrUnsupported }

func newSocketEnd(f *os.File) (endpoint, error) {
	f.Close()
	return nil, ErrUnsupported
}

type packetIO struct{}

func (*packetIO) init(*packet) {}

func (h *Handle) blockingFile() (*os.File, error) { return nil, ErrUnsupported }

func (*Conn) adoptFiles(fds []int, _ *connState) error {
	closeFDs(fds)
	return ErrUnsupported
}

func maxFiles() int { return 1024 }

func connectedFD(int) bool { return false }

func shutdownFD(int) {}

func detectKind(int) HandleKind { return HandleOther }

func (h *Handle) netConn() (net.Conn, error) { return nil, ErrHandleKind }

// Socket is the net.Conn that [Handle.Conn] makes of a descriptor; on this system there is none.
type Socket struct {
	net.Conn
	accepted string
}

// UnixSocket is likewise of Linux alone.
type UnixSocket struct{ Socket }

func asSocket(v any) (*Socket, bool) {
	s, ok := v.(*Socket)
	return s, ok
}

func socketFD(any) (fd int, ok bool, err error) { return -1, false, nil }
