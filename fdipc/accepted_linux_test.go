package fdipc

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

// What was known at accept is the same on the other side, and nothing that a peer may write in its
// place is taken.
func TestAcceptedCodec(t *testing.T) {
	v4, v6 := netip.MustParseAddrPort("192.0.2.1:65535"), netip.MustParseAddrPort("[fe80::1%eth0]:1")
	who := &Credentials{PID: 1 << 22, UID: 1<<31 - 1, GID: 3}
	for name, a := range map[string]Accepted{
		"nothing":             {},
		"IPv4":                {Remote: v4, Local: v4},
		"IPv6 with a zone":    {Remote: v6, Local: v6},
		"one of each":         {Remote: v6, Local: v4},
		"remote alone":        {Remote: v4},
		"Unix, no name":       {LocalName: "/run/x"},
		"Unix, longest names": {RemoteName: "@" + strings.Repeat("a", 107), LocalName: strings.Repeat("b", 108), Credentials: who},
		"credentials alone":   {Credentials: who},
	} {
		t.Run(name, func(t *testing.T) {
			s := a.encode()
			got, ok := decodeAccepted(s)
			if ok != (s != "") || !reflect.DeepEqual(got, a) {
				t.Fatalf("%+v became %+v, %v", a, got, ok)
			}
			for n := range len(s) { // cut off, and with a length that says so
				cut := s[:n]
				if _, ok := decodeAccepted(cut); ok {
					t.Errorf("%q was taken", cut)
				}
				if n > 1 {
					if _, ok := decodeAccepted(string([]byte{byte(n - 1)}) + cut[1:]); ok {
						t.Errorf("%q, cut off, was taken", cut)
					}
				}
			}
			if s != "" {
				if _, ok := decodeAccepted(string([]byte{s[0] + 1}) + s[1:] + "x"); ok {
					t.Error("it was taken with a byte too much")
				}
				if _, ok := decodeAccepted(s[:1] + string([]byte{s[1] | 0x20}) + s[2:]); ok {
					t.Error("it was taken with an unknown bit")
				}
			}
		})
	}
	for _, bad := range []string{"\x02\x03\x70", "\x02\x03\x01", "\x15\x02" + strings.Repeat("a", 18) + "\x02z"} {
		if a, ok := decodeAccepted(bad); ok {
			t.Errorf("%q was taken for %+v", bad, a)
		}
	}
}
