package peek

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
)

// Header is a header of the PROXY protocol.
type Header struct {
	// Source and Destination are the zero value if the header names none: UNKNOWN, LOCAL, Unix
	// sockets.
	Source, Destination netip.AddrPort

	Rest []byte // the bytes after the header; nil if the header is not complete
}

// ProxyHeader reads the header of the PROXY protocol, version 1 or 2, at the start of b, by the
// specification of HAProxy's authors (proxy-protocol.txt).
func ProxyHeader(b []byte) (Header, Verdict) {
	switch {
	case bytes.HasPrefix(b, []byte(proxyV2)):
		return proxyBinary(b)
	case bytes.HasPrefix(b, []byte(proxyV1)):
		return proxyText(b)
	case strings.HasPrefix(proxyV1, string(b[:min(len(b), len(proxyV1))])),
		strings.HasPrefix(proxyV2, string(b[:min(len(b), len(proxyV2))])):
		return Header{}, More
	}
	return Header{}, None
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
func proxyText(b []byte) (Header, Verdict) {
	end := bytes.Index(b[:min(len(b), maxProxyV1)], []byte("\r\n"))
	switch {
	case end < 0 && len(b) < maxProxyV1:
		return Header{}, More
	case end < 0:
		return Header{}, None
	}
	h := Header{Rest: b[end+2:]}
	f := strings.Split(string(b[len(proxyV1):end]), " ")
	if f[0] == "UNKNOWN" {
		return h, Found
	}
	if len(f) != 5 || f[0] != "TCP4" && f[0] != "TCP6" {
		return Header{}, None
	}
	var ok, ok2 bool
	h.Source, ok = textAddr(f[1], f[3], f[0] == "TCP4")
	h.Destination, ok2 = textAddr(f[2], f[4], f[0] == "TCP4")
	if !ok || !ok2 {
		return Header{}, None
	}
	return h, Found
}

func textAddr(addr, port string, four bool) (netip.AddrPort, bool) {
	a, err := netip.ParseAddr(addr)
	p, err2 := strconv.ParseUint(port, 10, 16)
	if err != nil || err2 != nil || a.Is4() != four || a.Zone() != "" {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p)), true
}

// proxyBinary reads version 2. It returns Found once it has the addresses; Rest may come later.
func proxyBinary(b []byte) (Header, Verdict) {
	if len(b) < proxyFixed {
		return Header{}, More
	}
	command, family, n := b[12], b[13], int(binary.BigEndian.Uint16(b[14:]))
	size := 0 // of the addresses
	switch {
	case command == proxyLocal: // a health check of the load balancer
	case command != proxyProxy:
		return Header{}, None
	case family == proxyTCP4:
		size = proxyBytes4
	case family == proxyTCP6:
		size = proxyBytes6
	}
	switch {
	case n < size:
		return Header{}, None
	case len(b) < proxyFixed+size:
		return Header{}, More
	}
	var h Header
	switch a := b[proxyFixed:]; size {
	case proxyBytes4:
		h.Source = binaryAddr(netip.AddrFrom4([4]byte(a[:4])), a[8:])
		h.Destination = binaryAddr(netip.AddrFrom4([4]byte(a[4:8])), a[10:])
	case proxyBytes6:
		h.Source = binaryAddr(netip.AddrFrom16([16]byte(a[:16])), a[32:])
		h.Destination = binaryAddr(netip.AddrFrom16([16]byte(a[16:32])), a[34:])
	}
	if len(b) >= proxyFixed+n {
		h.Rest = b[proxyFixed+n:]
	}
	return h, Found
}

func binaryAddr(a netip.Addr, port []byte) netip.AddrPort {
	return netip.AddrPortFrom(a.Unmap(), binary.BigEndian.Uint16(port))
}
