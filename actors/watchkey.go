package actors

// watchKey names what watches an actor: protoactor's watcher by its PID, the monitor of another
// process by its address and number, a monitor of this process by its number.
type watchKey struct {
	address string
	id      string
	ref     uint64
}

// endCause is how an end became known.
type endCause byte

const (
	endActor   endCause = 0 // the actor ended
	endNoActor endCause = 1 // there was none
	endProcess endCause = 2 // its process ended
)
