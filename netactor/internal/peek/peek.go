// Package peek reads what the first bytes of a connection say: the server name of a TLS
// ClientHello, a cookie of an HTTP/1 request, the addresses of a PROXY header. Its
// functions take the beginning of what a client sends, however much has come, and decide as
// early as they can: what they say of a beginning, other than More, holds for the whole.
//
// They keep nothing of b. What they return is a part of it, or a copy where it was in
// pieces. Whatever a client claims, they cost time and memory by what it has sent.
package peek

// Verdict is what there is in the bytes that have come.
type Verdict uint8

const (
	More  Verdict = iota // it depends on what comes next
	Found                // it is there
	None                 // it is not, whatever comes next
)

// MaxBytes is how many bytes of a connection are looked at.
const MaxBytes = 8192
