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
	return clientReader{b: msg[helloStart:min(len(msg), size)], left: size - helloStart, short: short, verdict: Found}, Found
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
	b       []byte  // the bytes that have come
	left    int     // bytes of the hello that are not read
	short   Verdict // More: the rest may come; None: it will not
	verdict Verdict // Found as long as what was read was there; then nothing more is read
}

// take reads n bytes. If they are not there, it sets verdict: they have not come, or cannot come
// because the hello ends before.
func (r *clientReader) take(n int) []byte {
	switch {
	case r.verdict != Found:
	case n > r.left:
		r.verdict = None
	case n > len(r.b):
		r.verdict = r.short
	default:
		b := r.b[:n]
		r.b, r.left = r.b[n:], r.left-n
		return b
	}
	return nil
}

func (r *clientReader) number(width int) (n int) {
	for _, c := range r.take(width) {
		n = n<<8 | int(c)
	}
	return n
}

// vector reads a vector whose length field has width bytes.
func (r *clientReader) vector(width int) []byte { return r.take(r.number(width)) }

func (r *clientReader) serverName() ([]byte, Verdict) {
	const version, random = 2, 32
	r.take(version + random)
	r.vector(1) // session ID
	r.vector(2) // cipher suites
	r.vector(1) // compression methods
	if n := r.number(2); r.verdict == Found && n != r.left {
		return nil, None
	}
	for r.verdict == Found {
		kind, body := r.number(2), r.vector(2)
		if r.verdict == Found && kind == 0 { // server_name
			return nameList(body)
		}
	}
	return nil, r.verdict // None at the end of the hello
}

// nameList reads a whole server_name extension. It may have only one name of each kind.
func nameList(b []byte) ([]byte, Verdict) {
	r := clientReader{b: b, left: len(b), verdict: Found}
	if r.number(2) != r.left {
		return nil, None
	}
	for r.verdict == Found {
		kind, name := r.number(1), r.vector(2)
		if kind == hostName {
			if 0 < len(name) && len(name) <= maxHostName {
				return name, Found
			}
			break
		}
	}
	return nil, None
}
