package coppice

import (
	"encoding/json"
	"net/http"
	"time"
)

// Poison refuses the requests that kill workers, before a handler sees them, with status 503. A
// request is known by its key. A key that was in flight in Deaths workers that died of themselves,
// was not answered by any worker of the pool meanwhile, and explains the deaths better than each
// other key in flight there, is quarantined: its requests are refused, but for a probe now and
// then, whose answer releases it. Deaths of a worker's own doing count: a panic, an exit, a signal
// of its own, a hang, a kill for memory; what the master or an operator ended does not.
//
// It is for the servers of [Worker.Serve] that are an *http.Server, in pools of processes. Keys are
// forgotten when the pool gives up and is started again, and by an upgrade.
type Poison struct {
	Deaths int           // zero = nothing is refused; 2 is a good number
	Window time.Duration // how long a death counts; zero = 10 min
	Probe  time.Duration // to the first probe; it doubles with each that dies, up to 10 min; zero = 30 s
	Expiry time.Duration // after its last death a key is forgotten; zero = 1 h
	Keys   int           // that are kept at most; zero = 1,024

	// Key returns the key of a request, which may be on any goroutine; "" = it is never refused,
	// not noted for crash reports, and has no RequestTimeout. nil = the method and URL.Path. It
	// must be quick, must not block, and must not read the body. Of a key of more than 216 bytes
	// the end is replaced by a hash.
	Key func(r *http.Request) string
}

func (p Poison) validate(bad reportInvalid, path string) {
	for name, n := range map[string]int{"Deaths": p.Deaths, "Keys": p.Keys} {
		if n < 0 {
			bad(path, "Poison."+name, n, "is negative")
		}
	}
	notNegative(bad, path, "Poison.Window", p.Window)
	notNegative(bad, path, "Poison.Probe", p.Probe)
	notNegative(bad, path, "Poison.Expiry", p.Expiry)
}

// A ServedRequest is a request that a worker was serving when it ended.
type ServedRequest struct {
	Key   string        `json:"key"` // see [Poison]; the worker has written it
	Age   time.Duration `json:"-" cbor:"age"`
	Trace string        `json:"trace_id,omitempty"` // that the client named, or of the connection
}

// MarshalJSON encodes durations as seconds.
func (s ServedRequest) MarshalJSON() ([]byte, error) {
	type plain ServedRequest
	return json.Marshal(struct {
		plain
		Age float64 `json:"age_seconds"`
	}{plain(s), s.Age.Seconds()})
}
