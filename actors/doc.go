// Package actors makes protoactor-go safe to supervise and the same from every
// process of a tree.
//
// A [System] is the actor system of one process. Actors are protoactor's
// (actor.Actor, actor.Context, *actor.PID): existing ones run unchanged, and answer with
// ctx.Respond. What starts, stops, asks and watches them is this package.
//
//	s, err := actors.NewSystem(actors.Config{Address: "1"})
//	pid, err := s.Spawn(ctx, "greeter", func() actor.Actor { return &greeter{} })
//	answer, err := actors.Ask[string](ctx, s, pid, "Ann")
//	err = s.Stop(ctx, pid)
//
// # Actors
//
// [System.Spawn] returns when the actor has handled Started, or has failed at it;
// [Exit] and any panic there become its error. No panic of a callback leaves the
// actor: the first one is its exit reason, and Stopping and Stopped still run. An
// actor is not restarted by protoactor but by its supervisor ([Child]), as a new incarnation with
// the same PID. The reasons are those of package supervisor:
//
//	Normal     ctx.Stop, [System.Poison], Exit(nil)
//	Shutdown   [System.Stop], the supervisor's stop
//	Error      Exit(err)
//	Panic      a panic, with its stack
//	Killed     it did not end in time; the handler that goes on is leaked, see [Stats]
//
// Who was asked to end and panics or calls Exit before it has ended leaves for that
// reason, as a process of Erlang does.
//
// Do not use, in actors that are to be supervised: Props.WithGuardian, stash,
// SetReceiveTimeout (it races; use time.AfterFunc and a message), protoactor's
// bounded mailboxes ([Spec].Bound). A Future is for one goroutine; [System.Ask] is for all.
// Actors that are spawned with protoactor's ctx.Spawn have protoactor's
// supervision: restarted in place, without a reason for their end.
//
// # Names and addresses
//
// A PID is address/id. The address is the process, the id is the actor's name in
// it. The PID of a name ([System.Lookup]) follows the holder: a message sent to it
// after a restart or a reload reaches the new one. A process asks the master for a
// name once and is told of changes; a change returns when all have been told. [ProcessPID] is the process itself.
// PIDs and names mean the same in every process and can be sent in messages. A [Group] is the
// actors of one id in all processes of a pool: to send to all, or to one by key.
//
// # What is promised
//
// Messages from one actor or goroutine to another arrive in order, if they
// arrive, once. Stop overtakes them, as in protoactor. A Down comes exactly once and
// after all that the actor sent to the process that monitors it.
//
// A message is lost only with the process it was sent to, or as a dead letter:
// counted, kept by type ([System.DeadLetters]), told to the sender. After Send
// returned nil, either can still happen.
//
// An ask ends with an answer, with the end of its context, or with a typed error
// as soon as nobody is left to answer: the actor does not exist, it ended (also
// after it took the message), its process died. A monitor of a process fires with the process's
// exit reason. A channel that breaks between two live processes ends what was on it with
// [ErrLane]. Less formally: nothing waits for the dead.
//
// A Monitor and a Stop bind to the incarnation they find; a Send does not. A
// message meant for the old incarnation can reach the new one: put a number into
// protocols that care.
//
// # Across processes
//
// The first message between two children makes a channel of their own, a lane; the
// master carries no messages of others. What is sent before it is there waits for it,
// so that order holds from the first message on.
//
// Protobuf messages cross as they are, other types after [RegisterType]. Types,
// fields and sizes are checked at the sender; what only the receiver can know comes
// back as the error of the ask. A message may carry open handles: [HandleCarrier]. The span in the context of a
// Send crosses with it: [Context]; spans per message are made by [Instrument]. Senders wait when a channel or a bounded mailbox is full: [Overflow],
// [Config].SendWait.
//
// # Duties of who owns the processes
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
// A system can not see a process that hangs; the runtime does, and kills it. An ask
// that an actor passed on to another process fails when the first process dies,
// and not when the second does. protoactor's own futures across processes (RequestFuture) get
// DeadLetterResponse when there is nobody, but not when the process dies: they time out. Handlers can not be ended from outside, only left.
package actors
