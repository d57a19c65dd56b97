package balance

// PeekState is how far peeking at a connection has got.
type PeekState uint8

const (
	PeekNotNeeded  PeekState = iota // nothing is to be looked at
	PeekIncomplete                  // it has not said enough
	PeekKey                         // the rest is what came of it
	PeekNoKey
	PeekTimedOut
	PeekTooMany
	PeekReset // the client has reset it
)
