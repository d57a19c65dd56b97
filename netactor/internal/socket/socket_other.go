//go:build !linux

package socket

import (
	"errors"
	"net"
	"os"
	"syscall"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
)

// Bound is a listening socket that the master holds, or a packet socket. Off Linux it is a
// net.Listener, or a net.PacketConn; Backlog and FD are not supported.
type Bound struct {
	ln   net.Listener
	pc   net.PacketConn // in place of ln
	path string

	Kept string // never set
}

// Open opens the socket of r, which is resolved and valid. The caller owns the result.
func Open(r SocketSpec) (*Bound, error) {
	if r.FD != 0 || r.Policy == netactor.ReusePort || r.Peek != (netactor.Peek{}) {
		return nil, os.NewSyscallError("listen", syscall.EINVAL)
	}
	if r.Options != (netactor.SocketOptions{}) || r.Control != nil {
		return nil, os.NewSyscallError("setsockopt Options", syscall.EOPNOTSUPP)
	}
	s := new(Bound)
	var err error
	if address.IsPacket(r.Network) {
		s.pc, err = net.ListenPacket(r.Network, r.Address)
	} else {
		s.ln, err = net.Listen(r.Network, r.Address)
	}
	if err != nil {
		return nil, err
	}
	if address.IsLocal(r.Network) {
		s.path = r.Address
		if r.Mode != 0 {
			if err := os.Chmod(r.Address, r.Mode.Perm()); err != nil {
				s.Close()
				return nil, os.NewSyscallError("chmod", err)
			}
		}
	}
	return s, nil
}

// Address returns the network and address of the socket.
func (s *Bound) Address() (network, address string, err error) {
	var a net.Addr
	if s.pc != nil {
		a = s.pc.LocalAddr()
	} else {
		a = s.ln.Addr()
	}
	return a.Network(), a.String(), nil
}

func IsPacket(int) bool { return false }

func (s *Bound) IsPacket() bool { return s.pc != nil }

func (s *Bound) Closed() bool { return false }

func (s *Bound) V6only() bool { return false }

// Handle returns a duplicate to send. The caller owns it.
func (s *Bound) Handle() (*fdipc.Handle, error) {
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

func (s *Bound) Applied(SocketSpec) (*Bound, error) { return s, nil }

// AdoptFile does nothing: the owner of a socket's file is not known here.
func (s *Bound) AdoptFile() {}

// Listening returns true: it is not known off Linux, where no watcher reports a shutdown.
func (s *Bound) Listening() bool { return true }

// Refuse does nothing: the listener process, or the dispatcher in the master, resets each
// connection.
func (s *Bound) Refuse() error { return nil }

func (s *Bound) Relisten(SocketSpec) error { return errors.ErrUnsupported }

func (s *Bound) CloseInBackground() { s.Close() }

func (s *Bound) Close() {
	if s.pc == nil {
		_ = s.ln.Close()
		return
	}
	_ = s.pc.Close()
	if s.path != "" {
		_ = os.Remove(s.path) // package net does not remove it
	}
}

// Receive claims a listening socket that a worker sent. It consumes the handle.
func Receive(h *fdipc.Handle) (*Bound, error) {
	ln, err := h.Listener()
	if err != nil {
		return nil, os.NewSyscallError("listen", syscall.EINVAL)
	}
	return &Bound{ln: ln}, nil
}

// Descriptor returns -1: there is a net.Listener.
func (s *Bound) Descriptor() int { return -1 }

// Retake returns an error: there is no service manager that keeps sockets.
func Retake(int, string, SocketSpec) (*Bound, error) { return nil, errors.ErrUnsupported }

// Readopt returns an error: no image of the program goes on in the process of another.
func Readopt(int, string, string, string) (*Bound, error) { return nil, errors.ErrUnsupported }

func (s *Bound) Path() string { return s.path }

func (s *Bound) FileID() string { return "" }

func (s *Bound) Release() int { return -1 }

func Port(int) uint16 { return 0 }
