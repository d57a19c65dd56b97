package netactor

import (
	"errors"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/netactor/internal/peek"
)

// Peek says what a Hash listener looks at before it places a connection: the bytes that the
// client sends first. They are looked at in the listener process, with MSG_PEEK: the worker reads
// all of them again. The zero value looks at nothing.
//
// A connection that has said nothing yet waits, without taking up a worker's room, until it has,
// for Timeout at most. It is then placed by its default, as without Peek: by Functions.Key, or by
// the client's IP address. So are those that say nothing that makes a key, and those that come
// while 1,024 of the listener wait already (fewer where the process may open few descriptors).
// Each is counted, see [Counts]. Those that wait are lost with the listener process, and go on being placed while the
// listener is paused.
//
// At most 8,192 bytes are looked at. What stands further back is not found.
type Peek struct {
	By PeekBy `json:",omitzero"`

	// Cookie is the name of the cookie of PeekCookie.
	Cookie string `json:",omitzero"`

	// Bytes is how many bytes PeekBytes compares, 1 to 8192.
	Bytes int `json:",omitzero"`

	// Proxy says that each connection begins with a header of the PROXY protocol, version 1 or
	// 2, as a load balancer writes it. The addresses in it stand for the client's and for the one it
	// connected to, in Functions.Key too, and By looks at what comes after it. With Proxy alone the
	// client's IP address is the key. The header is not checked against who sends it, since
	// it says only who serves the connection; nor is it taken off: that is for the worker to do.
	Proxy bool `json:",omitzero"`

	// Timeout is how long a connection may take to say enough; 0 means 1 s, at most 1 min.
	Timeout time.Duration `json:",omitzero"`
}

// PeekBy is what Hash makes a key of.
type PeekBy uint8

const (
	// PeekNone is the client's address, or Functions.Key.
	PeekNone PeekBy = iota
	// PeekSNI is the server name in a TLS ClientHello (RFC 6066 section 3), without regard to case.
	PeekSNI
	// PeekCookie is the value of the cookie Peek.Cookie in the first request of an HTTP/1 connection.
	// Those that follow on the same connection go where the first one went.
	PeekCookie
	// PeekBytes is the first Peek.Bytes bytes.
	PeekBytes
	// PeekFirst is what Functions.First says.
	PeekFirst

	peekBys // how many there are
)

var peekNames = [peekBys]string{"none", "sni", "cookie", "bytes", "first"}

// String returns none, sni, cookie, bytes or first.
func (p PeekBy) String() string {
	if p < peekBys {
		return peekNames[p]
	}
	return fmt.Sprintf("PeekBy(%d)", uint8(p))
}

const maxPeekTimeout = time.Minute

// Validate returns what cannot be meant, or nil.
func (p Peek) Validate() error {
	switch {
	case p.By >= peekBys:
		return errors.New("By is none of none, sni, cookie, bytes, first")
	case (p.By == PeekCookie) != (p.Cookie != ""):
		return errors.New("Cookie goes with By cookie, and only with it")
	case !peek.Token(p.Cookie):
		return errors.New("Cookie is not the name of a cookie (RFC 6265)")
	case (p.By == PeekBytes) != (p.Bytes != 0):
		return errors.New("Bytes goes with By bytes, and only with it")
	case p.Bytes < 0 || p.Bytes > peek.MaxBytes:
		return fmt.Errorf("Bytes is not between 1 and %d", peek.MaxBytes)
	case p.Timeout < 0 || p.Timeout > maxPeekTimeout:
		return fmt.Errorf("Timeout is not between 0 (= 1s) and %v", maxPeekTimeout)
	case p.Timeout != 0 && p.By == PeekNone && !p.Proxy:
		return errors.New("Timeout stands there without By or Proxy")
	}
	return nil
}
