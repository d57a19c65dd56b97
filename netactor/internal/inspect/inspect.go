// Package inspect is what the tests that run the three programs of package netactor together see
// of each of them, and what they may change. Each program fills in its functions as it is linked;
// only tests call them.
package inspect

import "time"

// DispatcherHooks change a dispatch.Dispatcher. They are set before it has listeners.
type DispatcherHooks struct {
	Accept  func(next func() (int, error)) (int, error) // in place of accept4(2), which next calls
	Reserve bool                                        // as if descriptors were always nearly used up
	After   func(time.Duration) <-chan time.Time        // in place of a timer, for pauses
}

// AcceptorView is the accept loop of one listener.
type AcceptorView struct {
	Parked       bool // it waits
	Load         int  // connections of all workers, and those that wait
	Counts       func() any
	Closed, Idle <-chan struct{} // the socket is closed; nothing is left of it
	SetPeekLimit func(int)
}

// TableView is a registry.Table, whose lock is held.
type TableView struct {
	Busy     bool // something works on its effects
	Sockets  []SocketView
	Awaiting int // requests that wait for a name
	Pending  int // sockets that are being opened
	Repairs  int // sockets whose repairs are remembered
	Watched  bool
}

// SocketView is one socket that the Table holds.
type SocketView struct {
	Number    uint64
	Index     int // in a ReusePort group
	FD        int
	Reopening bool
	Waiting   int // effects that wait until it is open again
	Listening func() bool
}

// Of a *dispatch.Dispatcher.
var (
	SetHooks func(dispatcher any, h DispatcherHooks)
	Listener func(dispatcher any, number uint64) (a AcceptorView, ok bool)
)

// Of a *registry.Table. QueuedFiles is how much work waits for the file at a path.
var (
	LookAt      func(table any, look func(TableView))
	QueuedFiles func(path string) int
)

// Of a *listen.Listeners. Hide makes it forget a listener until restore is called.
var (
	Paused   func(listeners any, number uint64) bool
	Ordinals func(listeners any) int
	Hide     func(listeners any, number uint64) (restore func())
)
