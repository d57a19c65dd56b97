package readiness

import "time"

// A Condition is how a program shows that it is ready: by at most one of these. Its fields are
// those of the runtime's Ready, which converts to it.
type Condition struct {
	Notify  bool
	Network string
	Address string
	Line    string
	Alive   time.Duration
}
