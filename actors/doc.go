// Package actors makes protoactor-go safe to supervise, and makes its actors reachable from every
// process of a tree in the same way.
//
// A [System] is the actor system of one process. Actors are protoactor's (actor.Actor,
// actor.Context, *actor.PID): existing ones run unchanged, and answer with ctx.Respond. This
// package starts, stops, asks and watches them.
//
//	s, err := actors.NewSystem(actors.Config{Address: "1"})
//	pid, err := s.Spawn(ctx, "greeter", func() actor.Actor { return &greeter{} })
//	answer, err := actors.Ask[string](ctx, s, pid, "Ann")
//	err = s.Stop(ctx, pid)
//
// # Actors
//
// [System.Spawn] returns when the actor has handled Started, or has failed at it; [Exit] and any
// panic there become its error. No panic of a callback leaves the actor: the first one is its exit
// reason, and Stopping and Stopped still run. Protoactor does not restart an actor; its supervisor
// does ([Child]), as a new incarnation with the same PID. The reasons are those of package
// supervisor:
//
//	Normal     ctx.Stop, [System.Poison], Exit(nil)
//	Shutdown   [System.Stop], the supervisor's stop
//	Error      Exit(err)
//	Panic      a panic, with its stack
//	Killed     it did not end in time; a handler that still runs is leaked, see [Stats]
//
// If an actor panics or calls Exit while it is stopping, that becomes its exit reason, as in
// Erlang.
//
// In actors that are to be supervised, do not use Props.WithGuardian, stash, SetReceiveTimeout (it
// races; use time.AfterFunc and a message), or protoactor's bounded mailboxes ([Spec].Bound). A
// Future is for one goroutine; [Ask] is for all. Actors that are spawned with protoactor's
// ctx.Spawn have protoactor's supervision: it restarts them in place, and their end has no reason.
//
// # Names and addresses
//
// A PID is address/id. The address is the process, the id is the actor's name in it. The PID of a
// name ([System.Lookup]) follows the holder: after a restart or a reload, messages reach the new
// one. A process asks the master for a name once, and the master tells it of changes; a change
// returns when every process that uses the name knows it. [ProcessPID] is the process itself. PIDs
// and names mean the same in every process and can be sent in messages. A [Group] is the actors of
// one id in all processes of a pool: to send to all, or to one by key.
//
// # What is promised
//
// Messages from one actor or goroutine to another arrive in order, if they arrive, once. Stop
// overtakes them, as in protoactor. A Down comes exactly once and after all that the actor sent to
// the process that monitors it.
//
// A message is lost only with the process it was sent to, or as a dead letter: counted, kept by
// type ([System.DeadLetters]), reported to the sender. After Send returned nil, either can still
// happen.
//
// An ask ends with an answer, with the end of its context, or with a typed error as soon as no
// actor can answer it: the actor does not exist, it ended (also after it took the message), or its
// process died. A monitor of a process fires with the process's exit reason. A channel that breaks
// between two live processes ends what was on it with [ErrLane]. Less formally: no call waits for a
// dead process.
//
// A Monitor and a Stop bind to the incarnation they find; a Send does not. A message for the old
// incarnation can reach the new one: a protocol for which that matters needs a number in its
// messages.
//
// # Across processes
//
// The first message between two children makes a channel between them, a lane; the master carries
// no messages of others. Messages that are sent before the lane is there wait for it, so that order
// holds from the first message on.
//
// Protobuf messages cross as they are, other types after [RegisterType]. Types, fields and sizes
// are checked at the sender; what only the receiver can know comes back as the error of the ask. A
// message may carry open handles: [HandleCarrier]. The span in the context of a Send crosses with
// it: [Context]; spans per message are made by [Instrument]. Senders wait when a channel or a
// bounded mailbox is full: [Overflow], [Config].SendWait.
//
// # Across hosts
//
// In a cluster each address is boot.id, and an actor of another host is asked, sent to and
// monitored by its PID or by [System.LookupAt] as any other. What differs: while no trunk leads to
// its host all that is [ErrUnreachable], which says nothing of the actor; handles cannot leave
// their host ([ErrForeign]); a call that changes a name does not wait for other hosts. A host that
// is started anew has another boot, and what ran before is down. A PID of [System.Lookup] in a
// message means a name in the reader's tree.
//
// # Duties of the owner of the processes
//
// Package runtime does this; a program that uses this package alone has to.
//
//  1. [NewSystem] with an address that no other process had before.
//  2. [System.Attach] for each fdipc.Conn, in its Ready, before the first frame. In a
//     child: [System.Uplink] with the master's address.
//  3. [System.HandleFrame] from the Conn's handler, for both lanes of it.
//  4. [System.Detach] with the exit reason, when the Conn is closed and the process is reaped.
//  5. Stop the actors in order, by supervisors; then [System.Shutdown].
//
// # Limits
//
// A system cannot see that a process hangs; the runtime does, and kills it. If an actor passes an
// ask on to another process, the ask fails when the first process dies, and not when the second
// does. Protoactor's own futures across processes (RequestFuture) get DeadLetterResponse when the
// actor does not exist, but time out when its process dies. A handler cannot be ended from outside,
// only left.
package actors
