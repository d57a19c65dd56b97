package peek

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"strings"
	"testing"
)

func TestProxyHeader(t *testing.T) {
	four := []byte{192, 0, 2, 1, 198, 51, 100, 7, 0x10, 0, 0x01, 0xbb}
	v2 := func(command, family byte, body ...byte) string {
		b := append([]byte(proxyV2), command, family)
		b = binary.BigEndian.AppendUint16(b, uint16(len(body)))
		return string(append(b, body...))
	}
	six := append(append(netip.MustParseAddr("2001:db8::1").AsSlice(), netip.MustParseAddr("2001:db8::2").AsSlice()...), 0x10, 0, 0x01, 0xbb)
	mapped := append(append(netip.MustParseAddr("::ffff:192.0.2.1").AsSlice(), netip.MustParseAddr("::1").AsSlice()...), 0x10, 0, 0x01, 0xbb)
	tlv := append(bytes.Clone(four), 4, 0, 3, 1, 2, 3)
	for _, tt := range []struct {
		name, b, source, rest string
		v                     Verdict
	}{
		{"1, TCP4", "PROXY TCP4 192.0.2.1 198.51.100.7 4096 443\r\nGET", "192.0.2.1:4096", "GET", Found},
		{"1, TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 4096 443\r\n", "[2001:db8::1]:4096", "", Found},
		{"1, unknown", "PROXY UNKNOWN\r\nGET", "invalid AddrPort", "GET", Found},
		{"1, unknown with addresses", "PROXY UNKNOWN ffff:f::1 ffff::1 65535 65535\r\n", "invalid AddrPort", "", Found},
		{"1, half", "PROXY TCP4 192.0.2.1 198.51", "invalid AddrPort", "", More},
		{"1, a few bytes", "PRO", "invalid AddrPort", "", More},
		{"1, too long", "PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n", "invalid AddrPort", "", None},
		{"1, a family that is another's", "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", "invalid AddrPort", "", None},
		{"1, a port too large", "PROXY TCP4 192.0.2.1 198.51.100.7 70000 443\r\n", "invalid AddrPort", "", None},
		{"1, a name", "PROXY TCP4 localhost 198.51.100.7 1 443\r\n", "invalid AddrPort", "", None},
		{"1, a zone", "PROXY TCP6 fe80::1%lo ::1 1 443\r\n", "invalid AddrPort", "", None},
		{"1, one field less", "PROXY TCP4 192.0.2.1 198.51.100.7 443\r\n", "invalid AddrPort", "", None},
		{"2, TCP4", v2(0x21, 0x11, four...) + "GET", "192.0.2.1:4096", "GET", Found},
		{"2, TCP6", v2(0x21, 0x21, six...), "[2001:db8::1]:4096", "", Found},
		{"2, IPv4 as IPv6", v2(0x21, 0x21, mapped...), "192.0.2.1:4096", "", Found},
		{"2, with TLVs", v2(0x21, 0x11, tlv...) + "GET", "192.0.2.1:4096", "GET", Found},
		{"2, the TLVs have not come", v2(0x21, 0x11, tlv...)[:28], "192.0.2.1:4096", "none", Found},
		{"2, local", v2(0x20, 0x00) + "GET", "invalid AddrPort", "GET", Found},
		{"2, local with addresses", v2(0x20, 0x11, four...), "invalid AddrPort", "", Found},
		{"2, of a Unix socket", v2(0x21, 0x31, make([]byte, 216)...), "invalid AddrPort", "", Found},
		{"2, half", v2(0x21, 0x11, four...)[:20], "invalid AddrPort", "", More},
		{"2, a few bytes", proxyV2[:5], "invalid AddrPort", "", More},
		{"2, addresses too short", v2(0x21, 0x11, four[:8]...), "invalid AddrPort", "", None},
		{"2, another command", v2(0x22, 0x11, four...), "invalid AddrPort", "", None},
		{"2, version 3", v2(0x31, 0x11, four...), "invalid AddrPort", "", None},
		{"nothing", "", "invalid AddrPort", "", More},
		{"none", "GET / HTTP/1.1\r\n", "invalid AddrPort", "", None},
	} {
		h, v := ProxyHeader([]byte(tt.b))
		rest := string(h.Rest)
		if h.Rest == nil && tt.v == Found {
			rest = "none"
		}
		if h.Source.String() != tt.source || rest != tt.rest || v != tt.v {
			t.Errorf("%s: %v, rest %q, %d; want %v, %q, %d", tt.name, h.Source, rest, v, tt.source, tt.rest, tt.v)
		}
	}
}

// FuzzProxyHeader: the addresses in the beginning are those of the whole, and Rest is the end of
// the bytes that came.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.7 4096 443\r\nGET"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add(append([]byte(proxyV2), 0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7, 0x10, 0, 1, 0xbb, 'x'))
	f.Add(append([]byte(proxyV2), 0x20, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		steady(t, b, func(b []byte) (string, Verdict) {
			h, v := ProxyHeader(b)
			return h.Source.String() + h.Destination.String(), v
		})
		if h, _ := ProxyHeader(b); !bytes.HasSuffix(b, h.Rest) {
			t.Fatalf("rest %q of %q", h.Rest, b)
		}
	})
}
