package readiness

import "time"

// A Condition is the sign by which a program shows that it is ready: at most one of its fields.
// They are those of the runtime's Ready, which converts to it.
type Condition struct {
	Notify  bool
	Network string
	Address string
	Line    string
	Alive   time.Duration
}
