package netactor

// peekState is how far peeking at a connection has got.
type peekState uint8

const (
	peekNotNeeded  peekState = iota // nothing is to be looked at
	peekIncomplete                  // it has not said enough
	peekKey                         // the rest is what came of it
	peekNoKey
	peekTimedOut
	peekTooMany
	peekReset // the client has reset it
)
