package netactor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// clientHello returns what crypto/tls says first to a server of that name.
func helloOf(t testing.TB, name string, change ...func(*tls.Config)) []byte {
	t.Helper()
	cfg := &tls.Config{ServerName: name, InsecureSkipVerify: true}
	for _, f := range change {
		f(cfg)
	}
	var sent bytes.Buffer
	if err := tls.Client(&oneWay{w: &sent}, cfg).Handshake(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return sent.Bytes()
}

// oneWay is a connection whose peer says b and nothing more.
type oneWay struct {
	net.Conn
	b []byte
	w io.Writer
}

func (c *oneWay) Read(b []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.b)
	c.b = c.b[n:]
	return n, nil
}

func (c *oneWay) Write(b []byte) (int, error)      { return c.w.Write(b) }
func (c *oneWay) Close() error                     { return nil }
func (c *oneWay) SetDeadline(time.Time) error      { return nil }
func (c *oneWay) SetReadDeadline(time.Time) error  { return nil }
func (c *oneWay) SetWriteDeadline(time.Time) error { return nil }

// served returns the server name that crypto/tls finds in a client's first bytes; ok says that it
// took them for a hello.
func nameServed(b []byte) (name string, ok bool) {
	stop := errors.New("seen enough")
	cfg := &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		name, ok = h.ServerName, true
		return nil, stop
	}}
	_ = tls.Server(&oneWay{b: b, w: io.Discard}, cfg).HandshakeContext(context.Background())
	return name, ok
}

// records spreads the handshake message of one record over records of n bytes.
func records(hello []byte, n int) (out []byte) {
	for msg := hello[5:]; len(msg) > 0; {
		part := msg[:min(n, len(msg))]
		msg = msg[len(part):]
		out = append(out, hello[0], hello[1], hello[2])
		out = binary.BigEndian.AppendUint16(out, uint16(len(part)))
		out = append(out, part...)
	}
	return out
}

func TestServerName(t *testing.T) {
	hello := helloOf(t, "shop.example")
	change := func(at int, to byte) []byte {
		b := bytes.Clone(hello)
		b[at] = to
		return b
	}
	nameAt := bytes.Index(hello, []byte("shop.example"))
	for _, tt := range []struct {
		name string
		b    []byte
		want string
		v    PeekVerdict
	}{
		{"whole", hello, "shop.example", PeekKeyed},
		{"nothing", nil, "", PeekMore},
		{"up to the name", hello[:nameAt], "", PeekMore},
		{"in the middle of the name", hello[:nameAt+3], "", PeekMore},
		{"no further than the name", hello[:nameAt+len("shop.example")], "shop.example", PeekKeyed},
		{"in records of one byte", records(hello, 1)[:maxPeek], "shop.example", PeekKeyed},
		{"in records of 100 bytes", records(hello, 100), "shop.example", PeekKeyed},
		{"no name", helloOf(t, ""), "", PeekUnkeyed},
		{"an IP address, of which no name is made", helloOf(t, "192.0.2.1"), "", PeekUnkeyed},
		{"TLS 1.2", helloOf(t, "old.example", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), "old.example", PeekKeyed},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), "", PeekUnkeyed},
		{"SSL 2", []byte{0x80, 0x2e, 1, 3, 1}, "", PeekUnkeyed},
		{"not a handshake", change(0, 23), "", PeekUnkeyed},
		{"a record of another version", change(1, 4), "shop.example", PeekKeyed},
		{"an empty record", []byte{22, 3, 1, 0, 0}, "", PeekUnkeyed},
		{"a record longer than any", []byte{22, 3, 1, 0x40, 1}, "", PeekUnkeyed},
		{"not a hello", change(5, 2), "", PeekUnkeyed},
		{"a hello that ends too early", change(8, 20), "", PeekUnkeyed},
		{"a name list that is longer than its extension", change(nameAt-4, 0xff), "", PeekUnkeyed},
		{"a name that is longer than its list", change(nameAt-1, 0xff), "", PeekUnkeyed},
		{"a name of another kind", change(nameAt-3, 1), "", PeekUnkeyed},
		{"a name of no bytes", change(nameAt-1, 0), "", PeekUnkeyed},
	} {
		got, v := serverName(tt.b)
		if string(got) != tt.want || v != tt.v {
			t.Errorf("%s: %q, %d; want %q, %d", tt.name, got, v, tt.want, tt.v)
		}
	}
}

func TestCookie(t *testing.T) {
	const first = "GET /a?b=c HTTP/1.1\r\nHost: x\r\n"
	for _, tt := range []struct {
		name, head, want string
		v                PeekVerdict
	}{
		{"alone", first + "Cookie: sid=abc\r\n\r\n", "abc", PeekKeyed},
		{"before the head's end", first + "Cookie: sid=abc\r\nAcc", "abc", PeekKeyed},
		{"second of three", first + "Cookie: a=1; sid=abc; z=2\r\n\r\n", "abc", PeekKeyed},
		{"in quotes", first + "Cookie: sid=\"abc\"\r\n\r\n", "abc", PeekKeyed},
		{"field in other case, no blanks", first + "cOOKIE:a=1;sid=abc\r\n\r\n", "abc", PeekKeyed},
		{"in a second field", first + "Cookie: a=1\r\nCookie: sid=abc\r\n\r\n", "abc", PeekKeyed},
		{"blanks around the name", first + "Cookie: a=1;\t sid\t =abc\r\n\r\n", "abc", PeekKeyed},
		{"value with =", first + "Cookie: sid=a=b\r\n\r\n", "a=b", PeekKeyed},
		{"HTTP/1.0, bare newlines", "GET / HTTP/1.0\nCookie: sid=abc\n\n", "abc", PeekKeyed},
		{"names differ by case", first + "Cookie: SID=abc\r\n\r\n", "", PeekUnkeyed},
		{"empty value", first + "Cookie: sid=\r\n\r\n", "", PeekUnkeyed},
		{"none", first + "\r\n", "", PeekUnkeyed},
		{"in the body", first + "\r\nCookie: sid=abc\r\n", "", PeekUnkeyed},
		{"in another field", first + "X-Cookie: sid=abc\r\n\r\n", "", PeekUnkeyed},
		{"nothing", "", "", PeekMore},
		{"half a method", "GE", "", PeekMore},
		{"half a field", first + "Cookie: sid=ab", "", PeekMore},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", PeekUnkeyed},
		{"TLS", "\x16\x03\x01\x00\x05", "", PeekUnkeyed},
		{"blank first", " / HTTP/1.1\r\n", "", PeekUnkeyed},
		{"no version", "GET /\r\n", "", PeekUnkeyed},
	} {
		got, v := cookie([]byte(tt.head), "sid")
		if string(got) != tt.want || v != tt.v {
			t.Errorf("%s: %q, %d; want %q, %d", tt.name, got, v, tt.want, tt.v)
		}
	}
}

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
		v                     PeekVerdict
	}{
		{"1, TCP4", "PROXY TCP4 192.0.2.1 198.51.100.7 4096 443\r\nGET", "192.0.2.1:4096", "GET", PeekKeyed},
		{"1, TCP6", "PROXY TCP6 2001:db8::1 2001:db8::2 4096 443\r\n", "[2001:db8::1]:4096", "", PeekKeyed},
		{"1, unknown", "PROXY UNKNOWN\r\nGET", "invalid AddrPort", "GET", PeekKeyed},
		{"1, unknown with addresses", "PROXY UNKNOWN ffff:f::1 ffff::1 65535 65535\r\n", "invalid AddrPort", "", PeekKeyed},
		{"1, half", "PROXY TCP4 192.0.2.1 198.51", "invalid AddrPort", "", PeekMore},
		{"1, a few bytes", "PRO", "invalid AddrPort", "", PeekMore},
		{"1, too long", "PROXY TCP4 " + strings.Repeat("1", 200) + "\r\n", "invalid AddrPort", "", PeekUnkeyed},
		{"1, a family that is another's", "PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n", "invalid AddrPort", "", PeekUnkeyed},
		{"1, a port too large", "PROXY TCP4 192.0.2.1 198.51.100.7 70000 443\r\n", "invalid AddrPort", "", PeekUnkeyed},
		{"1, a name", "PROXY TCP4 localhost 198.51.100.7 1 443\r\n", "invalid AddrPort", "", PeekUnkeyed},
		{"1, a zone", "PROXY TCP6 fe80::1%lo ::1 1 443\r\n", "invalid AddrPort", "", PeekUnkeyed},
		{"1, one field less", "PROXY TCP4 192.0.2.1 198.51.100.7 443\r\n", "invalid AddrPort", "", PeekUnkeyed},
		{"2, TCP4", v2(0x21, 0x11, four...) + "GET", "192.0.2.1:4096", "GET", PeekKeyed},
		{"2, TCP6", v2(0x21, 0x21, six...), "[2001:db8::1]:4096", "", PeekKeyed},
		{"2, IPv4 as IPv6", v2(0x21, 0x21, mapped...), "192.0.2.1:4096", "", PeekKeyed},
		{"2, with TLVs", v2(0x21, 0x11, tlv...) + "GET", "192.0.2.1:4096", "GET", PeekKeyed},
		{"2, the TLVs have not come", v2(0x21, 0x11, tlv...)[:28], "192.0.2.1:4096", "none", PeekKeyed},
		{"2, local", v2(0x20, 0x00) + "GET", "invalid AddrPort", "GET", PeekKeyed},
		{"2, local with addresses", v2(0x20, 0x11, four...), "invalid AddrPort", "", PeekKeyed},
		{"2, of a Unix socket", v2(0x21, 0x31, make([]byte, 216)...), "invalid AddrPort", "", PeekKeyed},
		{"2, half", v2(0x21, 0x11, four...)[:20], "invalid AddrPort", "", PeekMore},
		{"2, a few bytes", proxyV2[:5], "invalid AddrPort", "", PeekMore},
		{"2, addresses too short", v2(0x21, 0x11, four[:8]...), "invalid AddrPort", "", PeekUnkeyed},
		{"2, another command", v2(0x22, 0x11, four...), "invalid AddrPort", "", PeekUnkeyed},
		{"2, version 3", v2(0x31, 0x11, four...), "invalid AddrPort", "", PeekUnkeyed},
		{"nothing", "", "invalid AddrPort", "", PeekMore},
		{"none", "GET / HTTP/1.1\r\n", "invalid AddrPort", "", PeekUnkeyed},
	} {
		source, _, rest, v := proxyHeader([]byte(tt.b))
		if rest == nil && tt.v == PeekKeyed {
			rest = []byte("none")
		}
		if source.String() != tt.source || string(rest) != tt.rest || v != tt.v {
			t.Errorf("%s: %v, rest %q, %d; want %v, %q, %d", tt.name, source, rest, v, tt.source, tt.rest, tt.v)
		}
	}
	if s := (Peek{Proxy: true}).read([]byte(v2(0x20, 0)), nil); s.verdict != PeekUnkeyed {
		t.Errorf("LOCAL, which names nobody: %+v", s)
	}
	if s := (Peek{Proxy: true, By: PeekBytes, Bytes: 2}).read([]byte(v2(0x21, 0x11, tlv...)[:28]), nil); s.verdict != PeekMore || !s.peer.IsValid() {
		t.Errorf("bytes behind a header that is not whole: %+v", s)
	}
}

func TestPeekValidate(t *testing.T) {
	for _, tt := range []struct {
		name string
		p    Peek
		want string
	}{
		{"nothing", Peek{}, ""},
		{"sni", Peek{By: PeekSNI, Timeout: time.Minute}, ""},
		{"cookie", Peek{By: PeekCookie, Cookie: "sid"}, ""},
		{"bytes", Peek{By: PeekBytes, Bytes: maxPeek}, ""},
		{"proxy", Peek{Proxy: true, Timeout: time.Second}, ""},
		{"by what", Peek{By: peekBys}, "By is none of"},
		{"cookie without a name", Peek{By: PeekCookie}, "Cookie goes with"},
		{"cookie for nothing", Peek{By: PeekSNI, Cookie: "sid"}, "Cookie goes with"},
		{"name with a blank", Peek{By: PeekCookie, Cookie: "s id"}, "not the name"},
		{"no bytes", Peek{By: PeekBytes}, "Bytes goes with"},
		{"negative", Peek{By: PeekBytes, Bytes: -1}, "between 1 and 8192"},
		{"too many", Peek{By: PeekBytes, Bytes: maxPeek + 1}, "between 1 and 8192"},
		{"too long", Peek{By: PeekSNI, Timeout: time.Hour}, "Timeout is not"},
		{"timeout for nothing", Peek{Timeout: time.Second}, "without By"},
	} {
		err := tt.p.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		r := Request{Network: "tcp", Policy: Hash, Peek: tt.p}
		if err := r.validate(); (err == nil) != (tt.want == "") {
			t.Errorf("%s, in a request: %v", tt.name, err)
		}
	}
	for name, r := range map[string]Request{
		"another policy": {Network: "tcp", Peek: Peek{By: PeekSNI}},
		"no function":    {Network: "tcp", Policy: Hash, Peek: Peek{By: PeekFirst}},
	} {
		if r.validate() == nil {
			t.Errorf("%s is valid", name)
		}
	}
	for p := range peekBys + 1 {
		if (p == peekBys) != strings.HasPrefix(p.String(), "PeekBy(") {
			t.Errorf("%d is called %s", uint8(p), p)
		}
	}
}

// steady checks that what is said of the beginning of b is said of b too.
func steady(t *testing.T, b []byte, read func([]byte) (string, PeekVerdict)) {
	t.Helper()
	what, v := read(b)
	for i := range min(len(b), 600) {
		w, early := read(b[:i])
		if early != PeekMore && (early != v || w != what) {
			t.Fatalf("of %d bytes: %q, %d; of %d: %q, %d", i, w, early, len(b), what, v)
		}
	}
}

// warns reports whether one of the records of b is an alert.
func warns(b []byte) bool {
	const recordAlert = 21
	for len(b) >= 5 && b[0] != recordAlert {
		b = b[min(len(b), 5+int(binary.BigEndian.Uint16(b[3:]))):]
	}
	return len(b) > 0 && b[0] == recordAlert
}

// FuzzServerName: whatever a client says, the answer for its beginning is that for the whole; and where
// crypto/tls finds a name that a host can have, so do we. Warnings before the hello, which crypto/tls passes
// over, end our search.
func FuzzServerName(f *testing.F) {
	hello := helloOf(f, "a.example")
	f.Add(hello)
	f.Add(records(hello, 40))
	f.Add(helloOf(f, ""))
	f.Add(helloOf(f, "b.example", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12; c.NextProtos = []string{"h2"} }))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), maxPeek)]
		read := func(b []byte) (string, PeekVerdict) { n, v := serverName(b); return string(n), v }
		steady(t, b, read)
		got, v := read(b)
		if warns(b) {
			return
		}
		if name, ok := nameServed(bytes.Clone(b)); ok && len(name) <= maxHostName && (name != got || (name != "") != (v == PeekKeyed)) {
			t.Fatalf("%q, %d; crypto/tls has %q", got, v, name)
		}
	})
}

// FuzzCookie: the answer for the beginning is that for the whole; and where net/http finds the cookie, so do
// we, with the same value where there is no other: net/http passes over those that RFC 6265 does not allow.
func FuzzCookie(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\nCookie: a=1; sid=abc\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.0\nCookie: sid=\"abc\"\n\n"))
	f.Add([]byte("POST /x HTTP/1.1\r\nHost: x\r\ncookie:sid=;sid=x\r\n\r\nbody"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), maxPeek)]
		read := func(b []byte) (string, PeekVerdict) { n, v := cookie(b, "sid"); return string(n), v }
		steady(t, b, read)
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil || r.ProtoMajor != 1 || bytes.Contains(b, []byte("\n ")) || bytes.Contains(b, []byte("\n\t")) || len(r.CookiesNamed("sid")) != 1 {
			return // lines that go on in the next, which nobody sends
		}
		got, v := read(b)
		if c := r.CookiesNamed("sid")[0]; c.Value != "" && (v != PeekKeyed || got != c.Value && bytes.Count(b, []byte("sid")) == 1) {
			t.Fatalf("%q, %d; net/http has %q", got, v, c.Value)
		}
	})
}

// FuzzProxyHeader: the addresses of the beginning are those of the whole, and what comes after the header is
// the end of what came.
func FuzzProxyHeader(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 198.51.100.7 4096 443\r\nGET"))
	f.Add([]byte("PROXY UNKNOWN\r\n"))
	f.Add(append([]byte(proxyV2), 0x21, 0x11, 0, 12, 192, 0, 2, 1, 198, 51, 100, 7, 0x10, 0, 1, 0xbb, 'x'))
	f.Add(append([]byte(proxyV2), 0x20, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		steady(t, b, func(b []byte) (string, PeekVerdict) {
			s, d, _, v := proxyHeader(b)
			return s.String() + d.String(), v
		})
		if _, _, rest, _ := proxyHeader(b); !bytes.HasSuffix(b, rest) {
			t.Fatalf("rest %q of %q", rest, b)
		}
	})
}

// No address, name or value takes the parsers out of their bounds, and none costs memory that grows with
// what a client claims.
func BenchmarkServerName(b *testing.B) {
	hello := helloOf(b, "shop.example")
	b.ReportAllocs()
	for b.Loop() {
		serverName(hello)
	}
}
