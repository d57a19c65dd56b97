package dispatch

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/peek"
)

// verdicts maps the verdicts of package peek to those of netactor.
var verdicts = [...]netactor.PeekVerdict{peek.More: netactor.PeekMore, peek.Found: netactor.PeekKeyed, peek.None: netactor.PeekUnkeyed}

// peeks reports whether p looks at first bytes.
func peeks(p netactor.Peek) bool { return p.By != netactor.PeekNone || p.Proxy }

const (
	maxPeeking     = 1024 // connections of one listener that may wait for first bytes
	defaultTimeout = time.Second
)

// peekResult is the result of the first bytes of a connection.
type peekResult struct {
	verdict netactor.PeekVerdict
	hashed  bool           // placed by key, and not by the addresses
	key     uint64         // if hashed
	peer    netip.AddrPort // from a PROXY header; the zero value without one
	local   netip.AddrPort
}

// readPeek looks at b, the bytes that have come. It does not keep b. first is the function of
// PeekFirst.
func readPeek(p netactor.Peek, b []byte, first netactor.FirstFunc) (s peekResult) {
	if p.Proxy {
		h, v := peek.ProxyHeader(b)
		s.peer, s.local, s.verdict = h.Source, h.Destination, verdicts[v]
		if p.By == netactor.PeekNone && s.verdict == netactor.PeekKeyed && !s.peer.IsValid() {
			s.verdict = netactor.PeekUnkeyed
		}
		if p.By == netactor.PeekNone || s.verdict != netactor.PeekKeyed {
			return s
		}
		if h.Rest == nil {
			s.verdict = netactor.PeekMore
			return s
		}
		b = h.Rest
	}
	var what []byte
	switch p.By {
	case netactor.PeekSNI:
		name, v := peek.ServerName(b)
		what, s.verdict = bytes.ToLower(name), verdicts[v]
	case netactor.PeekCookie:
		value, v := peek.Cookie(b, p.Cookie)
		what, s.verdict = value, verdicts[v]
	case netactor.PeekBytes:
		s.verdict = netactor.PeekMore
		if len(b) >= p.Bytes {
			what, s.verdict = b[:p.Bytes], netactor.PeekKeyed
		}
	case netactor.PeekFirst:
		s.key, s.verdict = first(b)
		s.hashed = s.verdict == netactor.PeekKeyed
		return s
	default:
		s.verdict = netactor.PeekUnkeyed
	}
	if s.verdict == netactor.PeekKeyed {
		s.key, s.hashed = bytesKey(what), true
	}
	return s
}

// bytesKey is FNV-1a, of 64 bits. Like the circle of Hash it must be the same after a restart of
// the listener process, so it has no secret.
func bytesKey(b []byte) uint64 {
	h := uint64(0xcbf29ce484222325)
	for _, c := range b {
		h = (h ^ uint64(c)) * 0x100000001b3
	}
	return h
}
