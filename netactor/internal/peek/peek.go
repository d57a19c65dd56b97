// Package peek reads the first bytes of a connection: the server name of a TLS ClientHello, a
// cookie of an HTTP/1 request, the addresses of a PROXY header. Its functions take the bytes that
// have come so far, and decide as early as they can. A verdict other than More on a beginning holds
// for the whole.
//
// They do not keep b. Their result is a part of b, or a copy if it was in pieces. Their time and
// memory depend only on the bytes that have come, whatever lengths a client claims.
package peek

// Verdict is the result for the bytes that have come.
type Verdict uint8

const (
	More  Verdict = iota // the next bytes decide
	Found                // the value is there
	None                 // there is no value, whatever bytes follow
)

// MaxBytes is the number of bytes of a connection that are looked at.
const MaxBytes = 8192
