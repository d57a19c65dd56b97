package peek

import (
	"bytes"
	"strings"
)

// Cookie finds the value of a cookie in the head of an HTTP/1 request that begins with b: RFC 9112
// sections 2 to 5, RFC 6265 section 4.2. A cookie with an empty value counts as none. HTTP/2
// compresses its header fields, so Cookie finds none there.
func Cookie(b []byte, name string) ([]byte, Verdict) {
	line, rest, whole := bytes.Cut(b, []byte("\n"))
	if !whole {
		if !method(line) {
			return nil, None
		}
		return nil, More
	}
	line = bytes.TrimSuffix(line, []byte("\r"))
	if !method(line) || !version1(line) {
		return nil, None
	}
	for {
		if line, rest, whole = bytes.Cut(rest, []byte("\n")); !whole {
			return nil, More
		}
		if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
			return nil, None
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		if !bytes.EqualFold(field, []byte("cookie")) {
			continue
		}
		if v := pair(value, name); len(v) > 0 {
			return v, Found
		}
	}
}

// method reports whether line may begin a request line.
func method(line []byte) bool {
	name, _, _ := bytes.Cut(line, []byte(" "))
	return Token(string(name)) && (len(line) == 0 || len(name) > 0)
}

// version1 reports whether a request line ends with a version 1 of HTTP.
func version1(line []byte) bool {
	const last = " HTTP/1.x"
	at := len(line) - len(last)
	return at >= 0 && string(line[at:len(line)-1]) == last[:len(last)-1] && '0' <= line[len(line)-1] && line[len(line)-1] <= '9'
}

// pair returns the value of a pair of a Cookie field, without its quotes. Blanks around a name are
// not a part of it, as in net/http; RFC 6265 section 4.2.1 allows none.
func pair(field []byte, name string) []byte {
	for len(field) > 0 {
		var p []byte
		p, field, _ = bytes.Cut(field, []byte(";"))
		n, v, _ := bytes.Cut(bytes.Trim(p, " \t"), []byte("="))
		if string(bytes.TrimRight(n, " \t")) != name {
			continue
		}
		if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
			v = v[1 : len(v)-1]
		}
		return v
	}
	return nil
}

// Token reports whether s has only characters of a token: RFC 9110 section 5.6.2.
func Token(s string) bool {
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return true
}
