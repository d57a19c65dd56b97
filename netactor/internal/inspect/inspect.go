// Package inspect lets tests look into the three programs of package netactor and change some of
// them. Each program sets its functions in an init; only tests call them. It is no test file
// because Go shares an export_test.go with the tests of its own package only.
package inspect

import "time"

// DispatcherHooks change a dispatch.Dispatcher. They are set before it has listeners.
type DispatcherHooks struct {
	Accept  func(next func() (int, error)) (int, error) // replaces accept4(2), which next calls
	Reserve bool                                        // act as if descriptors were always nearly used up
	Park    int                                         // as many connections may be parked, and 0 stands for the usual number
	NoWatch bool                                        // epoll takes no connection to be parked
	After   func(time.Duration) <-chan time.Time        // replaces the timer of pauses
}

// AcceptorView is the accept loop of one listener.
type AcceptorView struct {
	Parked       bool // the loop waits
	Load         int  // connections of all workers, and waiting connections
	Counts       func() any
	Closed, Idle <-chan struct{} // closed with the socket; closed when nothing is left of the loop
	SetPeekLimit func(int)
}

// TableView is a registry.Table, whose lock is held.
type TableView struct {
	Busy     bool // a goroutine works on its effects
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

// These look into a *dispatch.Dispatcher.
var (
	SetHooks func(dispatcher any, h DispatcherHooks)
	Listener func(dispatcher any, number uint64) (a AcceptorView, ok bool)
)

// These look into a *registry.Table. QueuedFiles returns how much work waits for the file at a
// path. Leave ends a Table and leaves its sockets open, as an exec does.
var (
	LookAt      func(table any, look func(TableView))
	QueuedFiles func(path string) int
	Leave       func(table any)
)

// These look into a *listen.Listeners. Hide removes a listener from it until restore is called.
var (
	Paused   func(listeners any, number uint64) bool
	Ordinals func(listeners any) int
	Hide     func(listeners any, number uint64) (restore func())
)
