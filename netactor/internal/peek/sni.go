package peek

import "encoding/binary"

// ServerName finds the host name of the server_name extension in a TLS ClientHello that begins with
// b: RFC 8446 sections 4.1.2 and 5.1, RFC 6066 section 3. The hello may be spread over several
// records. ServerName decides as soon as it can: the name may come long before the hello's end.
func ServerName(b []byte) ([]byte, Verdict) {
	hello, v := handshake(b)
	if v != Found {
		return nil, v
	}
	return hello.serverName()
}

const (
	recordHandshake = 22
	maxRecord       = 1 << 14 // bytes of a record in the clear
	clientHello     = 1
	helloStart      = 4 // bytes: the kind, and the length of the body
	hostName        = 0
	maxHostName     = 255
)

// handshake returns the first handshake message, or the part of it that has come. The message ends
// before bytes that cannot be one of its records.
func handshake(b []byte) (r clientReader, v Verdict) {
	msg := b[:0:0]
	short := More
	for {
		part, more, v := record(b)
		if v == None {
			short = v
			break
		}
		if len(msg) == 0 {
			msg = part[:len(part):len(part)] // a part of b if there is one record, as from all but rare clients
		} else {
			msg = append(msg, part...)
		}
		if v == More || len(msg) >= helloStart && len(msg) >= helloSize(msg) {
			break
		}
		b = more
	}
	switch {
	case len(msg) > 0 && msg[0] != clientHello:
		return r, None
	case len(msg) < helloStart:
		return r, short
	}
	size := helloSize(msg)
	return clientReader{b: msg[:min(len(msg), size)], size: size, at: helloStart, short: short}, Found
}

// record returns the part that has come of the handshake record at the start of b. Found means that
// the record is complete; more is then the bytes after it. The version of a record is ignored: RFC
// 8446 section 5.1.
func record(b []byte) (part, more []byte, v Verdict) {
	if len(b) > 0 && b[0] != recordHandshake {
		return nil, nil, None
	}
	if len(b) < 5 {
		return nil, nil, More
	}
	n := int(binary.BigEndian.Uint16(b[3:]))
	switch {
	case n == 0 || n > maxRecord:
		return nil, nil, None
	case len(b) < 5+n:
		return b[5:], nil, More
	}
	return b[5 : 5+n], b[5+n:], Found
}

func helloSize(msg []byte) int { return helloStart + int(msg[1])<<16 + int(msg[2])<<8 + int(msg[3]) }

// clientReader reads a hello of which only a part may have come.
type clientReader struct {
	b       []byte // the bytes that have come
	size    int    // of the whole hello
	at      int
	short   Verdict // More: the rest may come; None: it will not
	verdict Verdict // More or None, once next has returned false
}

// next reports whether n more bytes are there. If they are not, it sets verdict: they have not
// come, or cannot come because the hello ends before.
func (r *clientReader) next(n int) bool {
	switch {
	case r.at+n > r.size:
		r.verdict = None
	case r.at+n > len(r.b):
		r.verdict = r.short
	default:
		return true
	}
	return false
}

// skip skips n bytes.
func (r *clientReader) skip(n int) bool {
	if !r.next(n) {
		return false
	}
	r.at += n
	return true
}

// vector skips a vector whose length field has width bytes.
func (r *clientReader) vector(width int) bool {
	n, ok := r.number(width)
	return ok && r.skip(n)
}

func (r *clientReader) number(width int) (n int, ok bool) {
	if !r.next(width) {
		return 0, false
	}
	for _, c := range r.b[r.at : r.at+width] {
		n = n<<8 | int(c)
	}
	r.at += width
	return n, true
}

func (r *clientReader) serverName() ([]byte, Verdict) {
	const version, random = 2, 32
	if !r.skip(version+random) || !r.vector(1) || !r.vector(2) || !r.vector(1) {
		return nil, r.verdict // session ID, cipher suites, compression methods
	}
	n, ok := r.number(2)
	if !ok {
		return nil, r.verdict
	}
	if r.at+n != r.size {
		return nil, None
	}
	for r.at < r.size {
		kind, ok := r.number(2)
		if !ok {
			return nil, r.verdict
		}
		if kind != 0 { // server_name
			if !r.vector(2) {
				return nil, r.verdict
			}
			continue
		}
		n, ok := r.number(2)
		if !ok || !r.next(n) {
			return nil, r.verdict
		}
		return nameList(r.b[r.at : r.at+n])
	}
	return nil, None
}

// nameList reads a whole server_name extension. It may have only one name of each kind.
func nameList(b []byte) ([]byte, Verdict) {
	if len(b) < 2 || int(binary.BigEndian.Uint16(b)) != len(b)-2 {
		return nil, None
	}
	for b = b[2:]; len(b) >= 3; {
		n := int(binary.BigEndian.Uint16(b[1:]))
		if len(b) < 3+n {
			break
		}
		if b[0] == hostName {
			if n == 0 || n > maxHostName {
				break
			}
			return b[3 : 3+n], Found
		}
		b = b[3+n:]
	}
	return nil, None
}
