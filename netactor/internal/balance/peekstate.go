package balance

// PeekState is the state of peeking at a connection.
type PeekState uint8

const (
	PeekNotNeeded  PeekState = iota // the listener does not look at first bytes
	PeekIncomplete                  // the client has not sent enough
	PeekKey                         // the first bytes have a key
	PeekNoKey                       // they have none
	PeekTimedOut                    // the client did not send enough in time
	PeekTooMany                     // too many connections of the listener were peeking
	PeekReset                       // the client has reset it
	PeekRefused                     // its first bytes have killed workers
)
