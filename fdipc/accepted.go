package fdipc

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
)

// Credentials are those of a process, as the kernel vouches for them: unix(7), SO_PEERCRED.
type Credentials struct{ PID, UID, GID int }

// Accepted is what the kernel said of a connection when it was accepted. It travels with the
// handle, and with the connection when that is sent on: asked later, the kernel does not know the
// address of a client that has reset the connection, and the process that answers may see other
// numbers for users. Zero fields are not known.
type Accepted struct {
	// Of a TCP connection. The zone of an IPv6 address is the name of an interface or its number.
	Remote, Local netip.AddrPort

	// Of a Unix connection, at most 108 bytes; an abstract name begins with @. Most clients have no
	// name.
	RemoteName, LocalName string

	// Of the client of a Unix connection, where they were asked for: SO_PEERCRED, see unix(7).
	Credentials *Credentials
}

// On the wire, in an entry with entryAccepted:
//
//	0  u8   length of what follows
//	1  u8   bits: 0-1 the remote address, 2-3 the local one, see addr*; 4 credentials; others 0
//	2       remote address
//	        local address
//	        credentials: u32 process, u32 user, u32 group
//
// An address of form addrIPv4 is 4 bytes and a u16 port; of addrIPv6 16 bytes, a u16 port, u8
// length of the zone and the zone; of addrName u8 length and the name.
const (
	addrNone = iota
	addrIPv4
	addrIPv6
	addrName

	acceptedCredentials = 1 << 4

	maxAddrName = 108 // of a sockaddr_un
	maxZone     = 15  // IFNAMSIZ less its end
)

// encode returns a as it stands on the wire, with its length; empty if nothing is known.
func (a *Accepted) encode() string {
	var buf [2 + 2*(1+maxAddrName) + 12]byte
	b := buf[:2]
	b, remote := appendAddr(b, a.Remote, a.RemoteName)
	b, local := appendAddr(b, a.Local, a.LocalName)
	bits := remote | local<<2
	if c := a.Credentials; c != nil {
		bits |= acceptedCredentials
		for _, n := range [...]int{c.PID, c.UID, c.GID} {
			b = binary.LittleEndian.AppendUint32(b, uint32(n))
		}
	}
	if bits == 0 {
		return ""
	}
	b[0], b[1] = byte(len(b)-1), bits
	return string(b)
}

func appendAddr(b []byte, ap netip.AddrPort, name string) ([]byte, uint8) {
	switch ip := ap.Addr(); {
	case ip.Is4():
		v := ip.As4()
		return binary.LittleEndian.AppendUint16(append(b, v[:]...), ap.Port()), addrIPv4
	case ip.Is6():
		v := ip.As16()
		b = binary.LittleEndian.AppendUint16(append(b, v[:]...), ap.Port())
		zone := ip.Zone()
		zone = zone[:min(len(zone), maxZone)]
		return append(append(b, byte(len(zone))), zone...), addrIPv6
	case name != "":
		name = name[:min(len(name), maxAddrName)]
		return append(append(b, byte(len(name))), name...), addrName
	}
	return b, addrNone
}

// decodeAccepted reads what encode has written, or a peer.
func decodeAccepted(s string) (a Accepted, ok bool) {
	if len(s) < 2 || int(s[0]) != len(s)-1 {
		return a, false
	}
	bits, b := s[1], s[2:]
	if bits&^(acceptedCredentials|0xf) != 0 {
		return a, false
	}
	if b, ok = cutAddr(b, bits&3, &a.Remote, &a.RemoteName); !ok {
		return Accepted{}, false
	}
	if b, ok = cutAddr(b, bits>>2&3, &a.Local, &a.LocalName); !ok {
		return Accepted{}, false
	}
	if bits&acceptedCredentials != 0 {
		if len(b) < 12 {
			return Accepted{}, false
		}
		n := func(i int) int { return int(binary.LittleEndian.Uint32([]byte(b[i : i+4]))) }
		a.Credentials = &Credentials{PID: n(0), UID: n(4), GID: n(8)}
		b = b[12:]
	}
	return a, b == ""
}

func cutAddr(b string, form uint8, ap *netip.AddrPort, name *string) (rest string, ok bool) {
	port := func(at int) uint16 { return uint16(b[at]) | uint16(b[at+1])<<8 }
	switch form {
	case addrIPv4:
		if len(b) < 6 {
			return "", false
		}
		*ap = netip.AddrPortFrom(netip.AddrFrom4([4]byte([]byte(b[:4]))), port(4))
		return b[6:], true
	case addrIPv6:
		if len(b) < 19 || int(b[18]) > min(maxZone, len(b)-19) {
			return "", false
		}
		end := 19 + int(b[18])
		*ap = netip.AddrPortFrom(netip.AddrFrom16([16]byte([]byte(b[:16]))).WithZone(b[19:end]), port(16))
		return b[end:], true
	case addrName:
		if len(b) < 1 || int(b[0]) > min(maxAddrName, len(b)-1) {
			return "", false
		}
		end := 1 + int(b[0])
		*name = b[1:end]
		return b[end:], true
	}
	return b, true
}

// SetAccepted notes what the kernel said of the connection when it was accepted, and returns h. It
// is for the process that has accepted it, before that process sends h or makes a connection of it.
func (h *Handle) SetAccepted(a Accepted) *Handle {
	s := a.encode()
	h.mu.Lock()
	h.accepted = s
	h.mu.Unlock()
	return h
}

// Accepted returns what the kernel said of the connection when it was accepted, by the word of its
// sender.
func (h *Handle) Accepted() Accepted {
	h.mu.Lock()
	s := h.accepted
	h.mu.Unlock()
	a, _ := decodeAccepted(s)
	return a
}

// acceptedOf returns what is known of v if it is a connection with a descriptor. A connection
// without one is handed over as the Go value that it is, and knows its own addresses.
func acceptedOf(v any) string {
	if s, ok := asSocket(v); ok {
		return s.accepted
	}
	c, ok := v.(net.Conn)
	if !ok {
		return ""
	}
	var a Accepted
	a.Remote, a.RemoteName = endOf(c.RemoteAddr())
	a.Local, a.LocalName = endOf(c.LocalAddr())
	if p, ok := c.(interface{ PeerCredentials() (Credentials, bool) }); ok {
		if who, ok := p.PeerCredentials(); ok {
			a.Credentials = &who
		}
	}
	return a.encode()
}

func endOf(a net.Addr) (netip.AddrPort, string) {
	switch a := a.(type) {
	case *net.TCPAddr:
		if a != nil && len(a.IP) > 0 {
			ap := a.AddrPort()
			return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), ""
		}
	case *net.UnixAddr:
		if a != nil {
			return netip.AddrPort{}, a.Name
		}
	}
	return netip.AddrPort{}, ""
}

// toAddr makes a net.Addr of one end, or the zero one of the network.
func toAddr(ap netip.AddrPort, name, network string) net.Addr {
	if network != "tcp" {
		return &net.UnixAddr{Name: name, Net: network}
	}
	if !ap.IsValid() {
		return &net.TCPAddr{}
	}
	a := net.TCPAddrFromAddrPort(ap)
	if a.Zone != "" && strings.Trim(a.Zone, "0123456789") == "" {
		a.Zone = zoneName(a.Zone)
	}
	return a
}

// zoneName returns the name of the interface of that number, or the number.
func zoneName(number string) string {
	n := 0
	for _, d := range number {
		n = 10*n + int(d-'0')
	}
	if i, err := net.InterfaceByIndex(n); err == nil {
		return i.Name
	}
	return number
}
