// Package fault is the seam by which fdipctest interferes with a link in memory.
package fault

// Event is a packet on its way.
type Event struct {
	Side  int   // 0: sent by the first Conn, 1: by the second
	Kind  uint8 // of the packet's first frame
	Count int   // descriptors with it
}

// Action is what becomes of it.
type Action struct {
	Again bool            // there is no room for it just now
	Cut   bool            // the link ends before it, as if the sender's process had died
	Keep  int             // with Trunc: so many descriptors arrive
	Trunc bool            // the receiver's descriptor table is full
	Hold  <-chan struct{} // it is not received before this is closed
	Write []byte          // if not nil: these bytes instead, as a hostile peer would
}

// Hook is asked about every packet. It is called with locks held and must not block.
type Hook func(Event) Action
