// Package netactor opens, shares and hands over listeners and connections. It does what Node's
// cluster module does, without its known problems (list: docs/listeners.md).
//
// It has three parts. Each runs in its own process, or all run in one:
//
//	registry    in the master: holds every listening socket, opens and shares them
//	dispatch    in the listener process: accepts, and offers each connection to a worker
//	listen      in each worker: asks for listeners, claims offered connections
//
// # A listener's way
//
//	worker                      master                         listener process
//	  Listen ──── KindListen ───▶ key known? else open
//	                              ├──────── KindOpen + socket ──▶ accept loop, waits for room
//	  listener ◀─ KindReply ──────┘
//	  └────────── KindJoin ─────────────────────────────────────▶ in the rotation, answers Join
//	  Accept   ◀─ KindOffer + connections ───────────────────────── accept4, pick, offer
//	  (claim)  ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ─ ▶ Resolved: copy closed
//	  Close    ── KindDone (coalesced) ─────────────────────────▶ one fewer at that worker
//	              or on a page of memory that both see, where that is soon enough
//
// A worker sends its Join over the link that carries its offers, so it gets no offer for a listener
// that it does not know yet. A new listener process learns from the workers which of them take
// part.
//
// Two requests mean the same socket if they have the same share key (network, address, descriptor,
// ordinal) or the same name. On port 0 the name is part of the key, or without a name the pool; at
// a fixed address two names are one socket, and a line in the log says so. A request for port 0
// also gets the assigned port number as an alias. A worker has a socket once: a second Listen on
// the same socket fails with EADDRINUSE. See [Request].
//
// A socket stays open as long as it has an owner. A listener spec owns it until the spec is
// stopped. A pool owns it until the pool is stopped (registry.Table.StopOwner) or gone for good
// (registry.Table.Gone), until every live worker has closed it, or until a reload completes in
// which no worker asked for it (registry.Table.Sweep). A death is not a close, and neither is a
// close by a failing worker (listen.Listeners.Fail). While the socket is open, clients wait in the
// kernel's backlog, whichever process is dead.
//
// The [SocketOptions] of the first request hold. They are set before the socket is bound, and some
// apply to its connections too.
//
// # What a connection can count on
//
//   - With [Peek], its first bytes decide which worker gets it. Until it has sent enough, or its
//     time is over, no worker knows of it, and it takes no worker's room.
//   - It is accepted only when a worker has room for it. Until then it stays in the kernel's
//     backlog: with no worker, at a limit, or while paused. No process spins.
//   - It is offered to one worker at a time, and served once: fdipc decides the claim.
//   - If the worker does not claim it, because the worker died, stalled, refused, or was out of
//     descriptors, another worker is offered it, at once if one has room. The worker that did not
//     claim it gets no offers for 50 ms, doubling to 2 s, or until it gives a sign of life.
//   - If its client reset it before the next offer, it is closed and counted.
//   - A claimed connection ends with its worker, and is counted.
//   - The death of the listener process loses the connections that it had accepted and not yet
//     offered: at most 64 per listener, the connections that waited for another worker, and the
//     connections that had not sent enough to be placed. A connection in a worker's queue can
//     still be claimed.
//
// In short, a worker's death costs only the clients that it was serving.
//
// With policies Shared and ReusePort each worker accepts for itself. A killed worker loses the
// connections that it had accepted, but not the backlog, and no dispatcher counts them. The workers
// have the listening socket, so a worker can shut it down for all; the master notices, and listens
// again.
//
// At a limit ([Limits]) connections wait in the backlog; or they are accepted and closed, or
// answered and closed. Each connection that is turned away is counted by its limit.
//
// Counts balance at every moment, see [Counts.Balanced] and [WorkerCounts.Balanced].
//
// # Packet sockets
//
// A UDP or Unix datagram socket has no connections to hand over. Under every policy but ReusePort
// each worker gets a duplicate of the one socket (listen.Listeners.ListenPacket), and a datagram
// goes to the worker that reads first. The master holds the socket and never reads. A worker's
// death loses the datagrams that it had read and not answered; the datagrams in the socket's queue
// wait for the other workers, or for the replacement. With ReusePort each slot has its own socket,
// and the kernel sends all datagrams from one client address to one of the sockets. There are no
// limits, no counts, and no pause. listen.UDPConn documents what else is shared with the socket.
//
// # Duties
//
// docs/architecture.md, "Connecting the parts of netactor", has the duties of the code that
// connects the parts, as package coppice does, in their order.
//
// # Limits
//
// TCP, UDP and Unix sockets; no raw IP. The master serves a worker's request with its own rights,
// whatever user the worker runs as; registry.Config.Rules limits what a worker may ask for. Workers
// of one tree trust each other with connections: a worker that knows a listener's number may join
// it. One worker may have 1,024 sockets open. Under ReusePort the socket of a worker that is not
// replaced resets the connections in its backlog, unless net.ipv4.tcp_migrate_req is 1. Off Linux
// the package works within one process, and does not support Backlog and FD.
package netactor
