package netactor

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// proxyHeader reads the header of the PROXY protocol, version 1 or 2, that b begins with, by
// the specification of HAProxy's authors (proxy-protocol.txt). PeekKeyed says that it is
// one. Its addresses are the zero value where it names none: UNKNOWN, LOCAL, Unix sockets.
// rest is what comes after the header; nil when that has not come.
func proxyHeader(b []byte) (source, destination netip.AddrPort, rest []byte, v PeekVerdict) {
	switch {
	case bytes.HasPrefix(b, []byte(proxyV2)):
		return proxyBinary(b)
	case bytes.HasPrefix(b, []byte(proxyV1)):
		return proxyText(b)
	case strings.HasPrefix(proxyV1, string(b[:min(len(b), len(proxyV1))])),
		strings.HasPrefix(proxyV2, string(b[:min(len(b), len(proxyV2))])):
		v = PeekMore
	default:
		v = PeekUnkeyed
	}
	return source, destination, nil, v
}

const (
	proxyV1     = "PROXY "
	proxyV2     = "\r\n\r\n\x00\r\nQUIT\n"
	maxProxyV1  = 107 // bytes, CRLF included
	proxyFixed  = 16  // bytes of version 2 before the addresses
	proxyLocal  = 0x20
	proxyProxy  = 0x21
	proxyTCP4   = 0x11
	proxyTCP6   = 0x21
	proxyBytes4 = 12
	proxyBytes6 = 36
)

// proxyText reads version 1: "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n".
func proxyText(b []byte) (source, destination netip.AddrPort, rest []byte, v PeekVerdict) {
	end := bytes.Index(b[:min(len(b), maxProxyV1)], []byte("\r\n"))
	if end < 0 {
		if len(b) >= maxProxyV1 {
			return source, destination, nil, PeekUnkeyed
		}
		return source, destination, nil, PeekMore
	}
	f := strings.Split(string(b[len(proxyV1):end]), " ")
	rest = b[end+2:]
	if f[0] == "UNKNOWN" {
		return source, destination, rest, PeekKeyed
	}
	if len(f) != 5 || f[0] != "TCP4" && f[0] != "TCP6" {
		return source, destination, nil, PeekUnkeyed
	}
	source, ok := textAddr(f[1], f[3], f[0] == "TCP4")
	destination, ok2 := textAddr(f[2], f[4], f[0] == "TCP4")
	if !ok || !ok2 {
		return netip.AddrPort{}, netip.AddrPort{}, nil, PeekUnkeyed
	}
	return source, destination, rest, PeekKeyed
}

func textAddr(addr, port string, four bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	p, err2 := strconv.ParseUint(port, 10, 16)
	if err != nil || err2 != nil || a.Is4() != four || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}

// proxyBinary reads version 2. Its addresses are enough where nobody asks for the rest.
func proxyBinary(b []byte) (source, destination netip.AddrPort, rest []byte, v PeekVerdict) {
	if len(b) < proxyFixed {
		return source, destination, nil, PeekMore
	}
	command, family, n := b[12], b[13], int(binary.BigEndian.Uint16(b[14:]))
	size := 0 // of the addresses
	switch {
	case command == proxyLocal: // the balancer's own, for its health checks
	case command != proxyProxy:
		return source, destination, nil, PeekUnkeyed
	case family == proxyTCP4:
		size = proxyBytes4
	case family == proxyTCP6:
		size = proxyBytes6
	}
	switch {
	case n < size:
		return source, destination, nil, PeekUnkeyed
	case len(b) < proxyFixed+size:
		return source, destination, nil, PeekMore
	}
	switch a := b[proxyFixed:]; size {
	case proxyBytes4:
		source = binaryAddr(netip.AddrFrom4([4]byte(a[:4])), a[8:])
		destination = binaryAddr(netip.AddrFrom4([4]byte(a[4:8])), a[10:])
	case proxyBytes6:
		source = binaryAddr(netip.AddrFrom16([16]byte(a[:16])), a[32:])
		destination = binaryAddr(netip.AddrFrom16([16]byte(a[16:32])), a[34:])
	}
	if len(b) >= proxyFixed+n {
		rest = b[proxyFixed+n:]
	}
	return source, destination, rest, PeekKeyed
}

func binaryAddr(a netip.Addr, port []byte) netip.AddrPort {
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}
