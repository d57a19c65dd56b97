package netactor

import (
	"errors"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/netactor/internal/peek"
)

// Peek is what a Hash listener looks at before it places a connection: the first bytes from the
// client. The listener process reads them with MSG_PEEK, so the worker reads all of them again. The
// zero value looks at nothing.
//
// A connection that has sent too little waits for at most Timeout, without taking a worker's room.
// It is then placed by its default, as without Peek: by Functions.Key, or by the client's IP
// address. The default also places a connection whose first bytes have no key, and one that comes
// while 1,024 connections of the listener wait already (fewer where the process may open few
// descriptors). Each is counted, see [Counts]. The connections that wait are lost with the listener
// process, and are still placed while the listener is paused.
//
// It looks at no more than 8,192 bytes, and finds nothing after them.
type Peek struct {
	By PeekBy `json:",omitzero"`

	// Cookie is the name of the cookie of PeekCookie.
	Cookie string `json:",omitzero"`

	// Bytes is the number of bytes that PeekBytes compares, 1 to 8192.
	Bytes int `json:",omitzero"`

	// Proxy means that each connection begins with a header of the PROXY protocol, version 1 or 2,
	// as a load balancer writes it. The addresses in the header replace the client's address and
	// the address that it connected to, in Functions.Key too, and By looks at the bytes after the
	// header. With Proxy alone the client's IP address is the key. The sender of the header is not
	// checked, since the header decides only which worker serves the connection. The header stays
	// in the stream: the worker must read it.
	Proxy bool `json:",omitzero"`

	// Timeout is how long a connection may take to send enough; 0 means 1 s, at most 1 min.
	Timeout time.Duration `json:",omitzero"`
}

// PeekBy is what Hash makes a key of.
type PeekBy uint8

const (
	// PeekNone is the client's address, or Functions.Key.
	PeekNone PeekBy = iota
	// PeekSNI is the server name in a TLS ClientHello (RFC 6066 section 3), without regard to case.
	PeekSNI
	// PeekCookie is the value of the cookie Peek.Cookie in the first request of an HTTP/1
	// connection. Later requests on the same connection go to the same worker.
	PeekCookie
	// PeekBytes is the first Peek.Bytes bytes.
	PeekBytes
	// PeekFirst is the key that Functions.First returns.
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

// Validate returns an error for the first field that is not valid, or nil.
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
		return errors.New("Timeout needs By or Proxy")
	}
	return nil
}
