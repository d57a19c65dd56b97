//go:build !linux

package netactor

import (
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/coppice-go/coppice/fdipc"
)

// socket is a listening socket that the master holds, or a packet socket. Off Linux it is a
// net.Listener, or a net.PacketConn; Backlog and FD are not supported.
type socket struct {
	ln   net.Listener
	pc   net.PacketConn // in place of ln
	path string
}

// newSocket opens the socket of r, which is resolved and valid. The
// result is owned by the caller.
func newSocket(r socketSpec) (*socket, error) {
	if r.FD != 0 || r.Policy == ReusePort || r.Peek != (Peek{}) {
		return nil, os.NewSyscallError("listen", syscall.EINVAL)
	}
	if r.Options != (SocketOptions{}) || r.control != nil {
		return nil, os.NewSyscallError("setsockopt Options", syscall.EOPNOTSUPP)
	}
	s := new(socket)
	var err error
	if packet(r.Network) {
		s.pc, err = net.ListenPacket(r.Network, r.Address)
	} else {
		s.ln, err = net.Listen(r.Network, r.Address)
	}
	if err != nil {
		return nil, err
	}
	if local(r.Network) {
		s.path = r.Address
		if r.Mode != 0 {
			if err := os.Chmod(r.Address, r.Mode.Perm()); err != nil {
				s.close()
				return nil, os.NewSyscallError("chmod", err)
			}
		}
	}
	return s, nil
}

// address returns where the socket listens.
func (s *socket) address() (network, address string, err error) {
	var a net.Addr
	if s.pc != nil {
		a = s.pc.LocalAddr()
	} else {
		a = s.ln.Addr()
	}
	return a.Network(), a.String(), nil
}

func isPacketFD(int) bool { return false }

func (s *socket) isPacket() bool { return s.pc != nil }

func (s *socket) closed() bool { return false }

func (s *socket) v6only() bool { return false }

// handle returns a duplicate to send, owned by the caller.
func (s *socket) handle() (*fdipc.Handle, error) {
	var v any = s.ln
	if s.pc != nil {
		v = s.pc
	}
	d, ok := v.(interface{ File() (*os.File, error) })
	if !ok {
		return nil, errors.ErrUnsupported
	}
	f, err := d.File()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if s.pc != nil {
		pc, err := net.FilePacketConn(f)
		if err != nil {
			return nil, err
		}
		return fdipc.HandleOf(pc)
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	return fdipc.HandleOf(ln)
}

func (s *socket) applied(socketSpec) (*socket, error) { return s, nil }

// adoptFile does nothing: who is behind the file of a socket is not known.
func (s *socket) adoptFile() {}

// listening is not known off Linux, and never asked for good reason.
func (s *socket) listening() bool { return true }

func (s *socket) relisten(socketSpec) error { return errors.ErrUnsupported }

func (s *socket) closeInBackground() { s.close() }

func (s *socket) close() {
	if s.pc == nil {
		_ = s.ln.Close()
		return
	}
	_ = s.pc.Close()
	if s.path != "" {
		_ = os.Remove(s.path) // package net leaves it
	}
}

// receiveSocket claims a listening socket that a worker sent. The handle is
// consumed.
func receiveSocket(h *fdipc.Handle) (*socket, error) {
	ln, err := h.Listener()
	if err != nil {
		return nil, os.NewSyscallError("listen", syscall.EINVAL)
	}
	return &socket{ln: ln}, nil
}
