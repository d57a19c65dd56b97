package socket

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/address"
)

// Retake takes ownership of fd, a socket that an earlier run of the program opened for a request
// with the share key of r, and that was kept since. fileID is what FileID returned then. Retake
// sets the options of r. If the socket is not what Open(r) would return, Retake closes fd, leaves
// the file of a Unix socket alone, and returns an error that says what differs.
func Retake(fd int, fileID string, r SocketSpec) (s *Bound, err error) {
	if address.IsPacket(r.Network) {
		s, err = takePacketSocket(&Bound{fd: fd})
	} else {
		s, err = takeSocket(fd)
	}
	if err != nil {
		return nil, err
	}
	if err = s.fits(r); err == nil {
		err = s.apply(r)
	}
	if err == nil && isPath(r) {
		err = s.retakeFile(fileID, r)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	if address.IsPacket(r.Network) {
		return s, nil
	}
	return s.listen(r) // once more: with the backlog of r
}

// isPath reports whether r asks for a Unix socket with a file.
func isPath(r SocketSpec) bool {
	return address.IsLocal(r.Network) && !strings.HasPrefix(r.Address, "@")
}

// fits returns an error if s, which is a socket of the right kind, differs from what r asks for in
// something that cannot be changed.
func (s *Bound) fits(r SocketSpec) error {
	network, addr, err := s.Address()
	if err != nil {
		return err
	}
	if network != strings.TrimRight(r.Network, "46") {
		return fmt.Errorf("it is a socket of %s", network)
	}
	if !s.Listening() {
		return errors.New("it was shut down")
	}
	if address.IsLocal(network) {
		if !isPath(r) && addr != r.Address {
			return fmt.Errorf("it is bound to %s", addr)
		}
		return nil
	}
	want, werr := netip.ParseAddrPort(r.Address)
	got, gerr := netip.ParseAddrPort(addr)
	if err := errors.Join(werr, gerr); err != nil {
		return err
	}
	a := want.Addr()
	switch {
	case a.IsMulticast() && a.Is4(): // as Open binds it
		a = netip.IPv4Unspecified()
	case a.IsMulticast(), a == netip.IPv6Unspecified():
		a = netip.IPv6Unspecified()
		if got.Addr() == netip.IPv4Unspecified() && network == r.Network {
			a = got.Addr() // there was no IPv6 here
		}
	case a.Zone() != "":
		id, err := zoneID(a.Zone())
		if err != nil {
			return err
		}
		a = a.WithZone(strconv.Itoa(int(id)))
	}
	reuse, err := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT)
	switch {
	case a != got.Addr() || want.Port() != 0 && want.Port() != got.Port():
		return fmt.Errorf("it is bound to %s", addr)
	case got.Addr().Is6() && s.V6only() != strings.HasSuffix(r.Network, "6"):
		return errors.New("it differs in IPV6_V6ONLY")
	case err != nil || (reuse != 0) != (r.Policy == netactor.ReusePort):
		return errors.New("it differs in SO_REUSEPORT")
	}
	return s.hasNoMore(r.Options)
}

// hasNoMore returns an error if s has an option that o does not ask for.
func (s *Bound) hasNoMore(o netactor.SocketOptions) error {
	family, ferr := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	typ, terr := unix.GetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err := errors.Join(ferr, terr); err != nil {
		return err
	}
	fresh, err := unix.Socket(family, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fresh)
	for _, opt := range fieldsOf(o, family) {
		if opt.to != 0 {
			continue
		}
		has, err := unix.GetsockoptInt(s.fd, opt.level, opt.name)
		byDefault, ferr := unix.GetsockoptInt(fresh, opt.level, opt.name)
		if err == nil && ferr == nil && has != byDefault {
			return fmt.Errorf("it has Options.%s %d", opt.field, has)
		}
	}
	return nil
}

// retakeFile takes over the file of a Unix socket, if that is still the file of fileID, with the
// mode of r.
func (s *Bound) retakeFile(fileID string, r SocketSpec) error {
	at, err := openSocketFile(r.Address, "bind")
	if err != nil {
		return err
	}
	if err := at.claim(r); err != nil {
		at.close()
		return err
	}
	if at.id() != fileID {
		at.close()
		return errors.New("its path is that of another file, or it had another Mode")
	}
	s.path, s.file = r.Address, at
	return nil
}

// FileID identifies the file of a Unix socket, as long as the socket lives: its device, its inode,
// which the socket holds, and the Mode that it was given. It is empty if there is no file of ours.
func (s *Bound) FileID() string {
	if s.file == nil {
		return ""
	}
	return s.file.id()
}

func (f *socketFile) id() string {
	if f.ino == 0 {
		return ""
	}
	return fmt.Sprintf("%x-%x-%o", f.dev, f.ino, f.mode)
}

// Release gives the descriptor to the caller and leaves the file of a Unix socket.
func (s *Bound) Release() (fd int) {
	if s.file != nil {
		s.file.close()
		s.file = nil
	}
	fd, s.fd = s.fd, -1
	return fd
}

// Port returns the port that the process's descriptor fd, a socket, is bound to; 0 if none.
func Port(fd int) uint16 {
	_, addr, err := (&Bound{fd: fd}).Address()
	if err != nil {
		return 0
	}
	ap, _ := netip.ParseAddrPort(addr) // else the zero value
	return ap.Port()
}
