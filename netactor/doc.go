// Package netactor opens, shares and hands over listeners and connections: what
// Node's cluster module does, with the weaknesses mended that its users met.
//
// Three parts, each in a process of its own or all in one:
//
//	registry    in the master: holds every listening socket, opens and shares them
//	dispatch    in the listener process: accepts, and offers each connection to a worker
//	listen      in each worker: asks for listeners, claims what it is offered
//
// # A listener's way
//
//	worker                      master                         listener process
//	  Listen ──── KindListen ───▶ key known? else open
//	                              ├──────── KindOpen + socket ──▶ accept loop, waits for room
//	  listener ◀─ KindReply ──────┘
//	  └────────── KindJoin ─────────────────────────────────────▶ in the rotation, says so
//	  Accept   ◀─ KindOffer + connections ───────────────────────── accept4, pick, offer
//	  (claim)  ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ▶ Resolved: copy closed
//	  Close    ── KindDone (coalesced) ─────────────────────────▶ one less at that worker
//	              or on a page of memory that both see, where that is soon enough
//
// A worker joins by its own word, over the link on which it is then offered
// connections: so it is never offered what it does not know yet, and a new
// listener process learns who takes part from those who do.
//
// Two requests mean the same socket if they have the same share key (network,
// address, descriptor, ordinal), or the same name. Of port 0 the number that it
// got is an alias. A worker has a socket once; to listen again on what it has
// is EADDRINUSE. See [Request].
//
// A socket lives as long as it has an owner. A listener spec owns until it is
// stopped. A pool owns until it is stopped (registry.Table.StopOwner), until every
// live worker has closed it (a death is not a close, nor is what a worker closes as it
// fails: listen.Listeners.Fail), or until a reload is complete in which nobody asked for it (registry.Table.Sweep). Meanwhile clients wait
// in the kernel's backlog, whoever is dead.
//
// What the first asker says of a socket holds: its [SocketOptions] are set before it is bound, and are those of
// the connections too.
//
// # What a connection can count on
//
//   - Where [Peek] asks for that, it is placed by what it says first. Until it has said enough, or its time is
//     over, no worker knows of it, and it takes up nobody's room.
//   - It is accepted only when a worker has room for it. Until then it is in the
//     kernel's backlog: with no worker, at a limit, or while paused. Nothing spins.
//   - It is offered to one worker at a time, and served once: the claim is fdipc's.
//   - If it is not claimed, since the worker died, stalled, refused, or was out of
//     descriptors, it is offered to another, at once if one has room. The worker
//     that did not take it is left alone for a while, 50 ms doubling to 2 s, or
//     until it gives a sign of life.
//   - If its client has reset it meanwhile, it is closed and counted.
//   - What was claimed dies with its worker, and is counted.
//   - The death of the listener process loses what it had accepted and not yet
//     offered: at most 64 connections a listener, those that waited for
//     another worker, and those that had not said enough to be placed. What lies in a worker's queue stays claimable.
//
// Less formally: no client pays for a worker's death but those being served.
//
// With policies Shared and ReusePort each worker accepts by itself: what a killed worker had
// accepted is lost, the backlog is not, and there is no dispatcher to count. Workers then have
// the listening socket, and can shut it down for all: the master notices, and listens again.
//
// At a limit ([Limits]) connections wait in the backlog; or they are accepted and closed, or answered
// and closed, each counted with the limit that was the reason.
//
// Counts balance at every moment, see [Counts.Balanced] and [SeatCounts.Balanced].
//
// # Packet sockets
//
// A UDP or Unix datagram socket has no connections to hand over: whatever the policy, each worker gets a duplicate
// of the one socket (listen.Listeners.ListenPacket), and a datagram goes to whoever reads first. The master holds it
// and never reads. So a worker's death loses the datagrams that it had read and not answered; what
// is queued in the socket waits for the others, or for the replacement. With ReusePort each slot has a socket of its
// own, and the kernel sends all datagrams of one client's address to one of them. There are no limits, no counts, and
// no pause. [UDPConn] says what else is shared with the socket.
//
// # Order of duties
//
// For whoever puts the parts together (package coppice does). W is a [Worker];
// its ID 0 stands for the master.
//
//  1. Master: registry.New. Listener process: dispatch.New. Worker: listen.New, with
//     its Conn to the master. Every Conn's Handler gives kinds 0x40 to 0x4f and 0x60 to 0x6f to
//     Table.HandleFrame (at the master), Dispatcher.HandleFrame (at the listener
//     process) or Listeners.HandleFrame (at the worker), with who it is from. Where
//     that answers false, it refuses the frame's handles.
//  2. Start of the listener process: Table.Attach(conn). It is sent the sockets.
//  3. Start of a worker: Table.AddWorker(W, conn), before frames of that Conn are
//     handled. Make a Socketpair; send one end to the listener process, the other to
//     the worker. There: fdipc.New with Resolved calling Dispatcher.Settled and
//     Credits = [LinkCredits], then Dispatcher.AddWorker(W, link). Here: fdipc.New,
//     then Listeners.AddLink(link). The worker is ready once Listeners.Joined says so.
//  4. Death of a worker, once reaped: Table.RemoveWorker(id, retired), and tell the
//     listener process, which calls Dispatcher.RemoveWorker(id). Only then does
//     everything come back that must.
//  5. Death of the listener process, once reaped: Table.Detach. Start another, and
//     make a new link to every worker: 2 and 3. Workers call AddLink again and join
//     by themselves.
//  6. A listener spec: Table.Open at its start, Table.StopOwner at its stop.
//  7. A worker's drain: Listeners.Drain(ctx) closes its listeners, so that its share
//     goes to others, and waits for its connections; at its end Listeners.Close closes its packet sockets.
//  8. The tree's end: Dispatcher.Shutdown(ctx) while the workers still accept, so
//     that the backlog is served; then drain and stop the workers; then Table.Close.
//
// # Limits
//
// TCP, UDP and Unix sockets; no raw IP. A worker's request is served with the rights of the
// master, whoever the worker runs as; registry.Config.Rules says what may be asked for. Workers of one tree trust each other with
// connections: one that knows a listener's number may join it. One worker may have 1,024 sockets
// open. Under ReusePort the socket of a worker that is not replaced resets what is in its backlog,
// unless net.ipv4.tcp_migrate_req is 1. Off Linux the package works within one process:
// Backlog and FD are not supported there.
package netactor
