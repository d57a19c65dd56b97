package peek

import (
	"bufio"
	"bytes"
	"net/http"
	"testing"
)

func TestCookie(t *testing.T) {
	const first = "GET /a?b=c HTTP/1.1\r\nHost: x\r\n"
	for _, tt := range []struct {
		name, head, want string
		v                Verdict
	}{
		{"alone", first + "Cookie: sid=abc\r\n\r\n", "abc", Found},
		{"before the head's end", first + "Cookie: sid=abc\r\nAcc", "abc", Found},
		{"second of three", first + "Cookie: a=1; sid=abc; z=2\r\n\r\n", "abc", Found},
		{"in quotes", first + "Cookie: sid=\"abc\"\r\n\r\n", "abc", Found},
		{"field in other case, no blanks", first + "cOOKIE:a=1;sid=abc\r\n\r\n", "abc", Found},
		{"in a second field", first + "Cookie: a=1\r\nCookie: sid=abc\r\n\r\n", "abc", Found},
		{"blanks around the name", first + "Cookie: a=1;\t sid\t =abc\r\n\r\n", "abc", Found},
		{"value with =", first + "Cookie: sid=a=b\r\n\r\n", "a=b", Found},
		{"HTTP/1.0, bare newlines", "GET / HTTP/1.0\nCookie: sid=abc\n\n", "abc", Found},
		{"names differ by case", first + "Cookie: SID=abc\r\n\r\n", "", None},
		{"empty value", first + "Cookie: sid=\r\n\r\n", "", None},
		{"none", first + "\r\n", "", None},
		{"in the body", first + "\r\nCookie: sid=abc\r\n", "", None},
		{"in another field", first + "X-Cookie: sid=abc\r\n\r\n", "", None},
		{"nothing", "", "", More},
		{"half a method", "GE", "", More},
		{"half a field", first + "Cookie: sid=ab", "", More},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "", None},
		{"TLS", "\x16\x03\x01\x00\x05", "", None},
		{"blank first", " / HTTP/1.1\r\n", "", None},
		{"no version", "GET /\r\n", "", None},
	} {
		got, v := Cookie([]byte(tt.head), "sid")
		if string(got) != tt.want || v != tt.v {
			t.Errorf("%s: %q, %d; want %q, %d", tt.name, got, v, tt.want, tt.v)
		}
	}
}

// FuzzCookie: the verdict on the beginning holds for the whole; and if net/http finds the cookie,
// so does Cookie, with the same value if there is no other: net/http skips values that RFC 6265
// does not allow.
func FuzzCookie(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\nCookie: a=1; sid=abc\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.0\nCookie: sid=\"abc\"\n\n"))
	f.Add([]byte("POST /x HTTP/1.1\r\nHost: x\r\ncookie:sid=;sid=x\r\n\r\nbody"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		b = b[:min(len(b), most)]
		read := func(b []byte) (string, Verdict) { n, v := Cookie(b, "sid"); return string(n), v }
		steady(t, b, read)
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(b)))
		if err != nil || r.ProtoMajor != 1 || bytes.Contains(b, []byte("\n ")) || bytes.Contains(b, []byte("\n\t")) || len(r.CookiesNamed("sid")) != 1 {
			return // folded lines, which no client sends
		}
		got, v := read(b)
		if c := r.CookiesNamed("sid")[0]; c.Value != "" && (v != Found || got != c.Value && bytes.Count(b, []byte("sid")) == 1) {
			t.Fatalf("%q, %d; net/http has %q", got, v, c.Value)
		}
	})
}
