package peek

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

// helloOf returns the hello that crypto/tls sends to a server of that name.
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

// oneWay is a connection that receives b and nothing more.
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

// nameServed returns the server name that crypto/tls finds in a client's first bytes; ok reports
// whether it took them for a hello.
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
		v    Verdict
	}{
		{"whole", hello, "shop.example", Found},
		{"nothing", nil, "", More},
		{"up to the name", hello[:nameAt], "", More},
		{"in the middle of the name", hello[:nameAt+3], "", More},
		{"no further than the name", hello[:nameAt+len("shop.example")], "shop.example", Found},
		{"in records of one byte", records(hello, 1)[:most], "shop.example", Found},
		{"in records of 100 bytes", records(hello, 100), "shop.example", Found},
		{"no name", helloOf(t, ""), "", None},
		{"an IP address, of which no name is made", helloOf(t, "192.0.2.1"), "", None},
		{"TLS 1.2", helloOf(t, "old.example", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }), "old.example", Found},
		{"HTTP", []byte("GET / HTTP/1.1\r\n"), "", None},
		{"SSL 2", []byte{0x80, 0x2e, 1, 3, 1}, "", None},
		{"not a handshake", change(0, 23), "", None},
		{"a record of another version", change(1, 4), "shop.example", Found},
		{"an empty record", []byte{22, 3, 1, 0, 0}, "", None},
		{"a record longer than any", []byte{22, 3, 1, 0x40, 1}, "", None},
		{"not a hello", change(5, 2), "", None},
		{"a hello that ends too early", change(8, 20), "", None},
		{"a name list that is longer than its extension", change(nameAt-4, 0xff), "", None},
		{"a name that is longer than its list", change(nameAt-1, 0xff), "", None},
		{"a name of another kind", change(nameAt-3, 1), "", None},
		{"a name of no bytes", change(nameAt-1, 0), "", None},
	} {
		got, v := ServerName(tt.b)
		if string(got) != tt.want || v != tt.v {
			t.Errorf("%s: %q, %d; want %q, %d", tt.name, got, v, tt.want, tt.v)
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

// FuzzServerName: for any bytes of a client, the verdict on the beginning holds for the whole; and
// if crypto/tls finds a name that a host can have, so does ServerName. Warnings before the hello,
// which crypto/tls skips, end the search.
func FuzzServerName(f *testing.F) {
	hello := helloOf(f, "a.example")
	f.Add(hello)
	f.Add(records(hello, 40))
	f.Add(helloOf(f, ""))
	f.Add(helloOf(f, "b.example", func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12; c.NextProtos = []string{"h2"} }))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), most)]
		read := func(b []byte) (string, Verdict) { n, v := ServerName(b); return string(n), v }
		steady(t, b, read)
		got, v := read(b)
		if warns(b) {
			return
		}
		if name, ok := nameServed(bytes.Clone(b)); ok && len(name) <= maxHostName && (name != got || (name != "") != (v == Found)) {
			t.Fatalf("%q, %d; crypto/tls has %q", got, v, name)
		}
	})
}

// One op is one hello of crypto/tls, in one record: nothing is allocated.
func BenchmarkServerName(b *testing.B) {
	hello := helloOf(b, "shop.example")
	b.ReportAllocs()
	for b.Loop() {
		ServerName(hello)
	}
}
