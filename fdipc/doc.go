// Package fdipc carries frames and open descriptors between two processes over a Unix
// socket, and loses neither.
//
// A [Conn] joins two processes. What travels is a [Frame]: a kind, a lane, a target, a few
// flags, an opaque trace context, a payload and any number of handles. A [Handle] is an
// open descriptor on its way: a listener, an accepted connection, a file.
//
//	local, remote, err := fdipc.Socketpair()
//	… start the child with remote, and fdipc.Environ(fd, nil) in its environment …
//	remote.Close()
//	c, err := fdipc.New(local, fdipc.Config{Handler: handle})
//	h, err := fdipc.HandleOf(conn)
//	err = c.Send(ctx, &fdipc.Frame{Kind: 0x40, Handles: []*fdipc.Handle{h}})
//
// and in the child
//
//	f, env, ok, err := fdipc.Inherited()
//	c, err := fdipc.New(f, fdipc.Config{Handler: func(c *fdipc.Conn, f *fdipc.Frame) {
//		conn, err := f.Handles[0].Conn() // claims it
//	}})
//
// # Ownership
//
// Sending moves a handle in three steps.
//
//   - Offered: the receiver has a copy of the descriptor, the sender keeps its own.
//   - Claimed: the receiver's application took it, by [Handle.Claim] or a conversion.
//   - Released: the sender has closed its copy.
//
// An offer that the receiver refuses, or does not claim before it dies or [Config.ClaimTimeout] is
// over, comes back to the sender through [Config.Resolved]. The claim is one compare-and-swap in
// memory that both processes share, so a handle is either claimed or comes back; never both,
// whatever happens to either process, however long it was stopped. Less formally: the death of a
// worker loses no connection that the worker has not taken up, and no connection is served twice.
// What was claimed dies with its claimant.
//
// A peer must be able to map that memory; without it the Conn ends with [ErrFeature].
//
// # Order and lanes
//
// Frames sent one after the other on a lane are handled in that order. There are two lanes, each
// with a socket and a goroutine of its own. There is no order between them, and a full [Data] lane
// does not hold up [Control].
//
// # Requests
//
// A frame is one-way. [Calls] match replies with requests, and end them with a context or a Conn.
//
// # A process that is replaced
//
// A process that replaces its image by exec(3) keeps its Conns, in the middle of what they do.
// [Conn.Suspend] stops one between two packets and returns its state and its descriptors; [Restore]
// in the next image makes a Conn of them, and [Conn.Resume] lets it go on. No frame is lost,
// doubled, cut or out of its order, and an offer is still claimed or comes back. The peer need do
// nothing, and sees nothing but a pause. What is in the memory of the application does not go
// along: the tags of handles, calls that wait, requests that it works on.
//
// # Duties
//
// A Handler claims or refuses every handle it is given. A sender's Resolved callback closes or
// sends on every handle that comes back. The owner of the peer process calls PeerGone once the
// process was reaped. An application that replaces its process has its own parts stopped before it
// suspends its Conns, and takes their state after that: what a Conn tells, it tells before Suspend
// returns.
//
// # Locks
//
// lane.mu before offers.mu; Handle.mu before both; offers.callback before offers.mu; Conn.mu is a
// leaf. No lock but offers.callback is held across a callback, or while the Conn is suspended.
//
// # Rooms
//
// internal/claims is the table that both processes share, internal/closer closes descriptors whose
// close may wait, internal/lazyconn is the connection that a handle becomes, internal/inherit takes
// the marker variables out of the environment.
//
// # Limits
//
// Sockets between processes need Linux. Elsewhere [Pipe] works, and [New] returns [ErrUnsupported].
package fdipc
