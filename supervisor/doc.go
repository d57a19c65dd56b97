// Package supervisor runs supervision trees by the rules of Erlang/OTP: it starts children in
// order, restarts those that fail, gives up when they fail too often, and stops them in reverse
// order. A child is a function, another supervisor, or anything else that implements [Starter] and
// [Instance]: other packages of Coppice make children of actors and of operating system processes.
//
// # Use
//
// A tree is described by plain structs and started as a whole:
//
//	s, err := supervisor.Start(ctx, supervisor.Spec{
//		Name:      "app",
//		Strategy:  supervisor.RestForOne, // web needs db
//		Intensity: supervisor.Intensity{Max: 3, Period: time.Minute},
//		Children: []supervisor.ChildSpec{
//			{ID: "db", Start: supervisor.Func(db.Serve)},
//			{ID: "web", Start: supervisor.Func(web.Serve), Shutdown: 20 * time.Second},
//			{ID: "jobs", Start: supervisor.Spec{ // a supervisor is a child, too
//				Children: []supervisor.ChildSpec{{ID: "mail", Start: supervisor.Func(mail)}},
//			}},
//		},
//	}, supervisor.Config{})
//	if err != nil {
//		return err // nothing runs
//	}
//	defer s.Shutdown(ctx)
//
// A child function has suture's form, func(ctx) error: it runs until it fails,
// is done, or its ctx ends; see [Func]. What it returns, or that it panicked,
// becomes its [Reason]. A child of another kind is a [Starter] whose Start returns an
// [Instance]: four methods, and [Base] for the rest.
//
// # Which ends lead to a restart
//
//	             normal, shutdown        anything else
//	Permanent    restart                 restart
//	Transient    spec kept, down         restart
//	Temporary    spec deleted            spec deleted
//
// The [Strategy] says which children are restarted with it: none, all, or those started later. A
// restart puts a new instance in the same place, with the same spec; nothing else of the old one
// survives. A group's restart starts every spec that it finds, also those of children that had been
// stopped by hand or had finished. Temporary members of the group are stopped and deleted.
//
// # Giving up
//
// All children of a supervisor share one restart budget, [Intensity]. After more than Max restarts
// within Period the supervisor stops its children and ends with GaveUp. For the supervisor above,
// that is a child that failed. So a failure that a restart does not cure travels up, until a
// restart at a higher level cures it or the program ends. Every attempt counts, also one whose
// start fails; a group's restart counts once; calls do not count.
//
// [Backoff] spreads the attempts. While a child waits for its delay it is [Restarting] and its
// group is stopped. Calls do not wait for the delay: TerminateChild cancels the attempt,
// RestartChild returns ErrRestarting, Shutdown goes on.
//
// # Stopping
//
// Children are stopped one after another, last started first, each within
// [ChildSpec.Shutdown]: a child is asked to stop, and killed when its time is over.
// The children of a Dynamic supervisor are stopped all at once. A goroutine cannot
// be killed. A function that does not return in time is abandoned: it is
// counted as leaked in the snapshot and by events until it does return or its
// supervisor ends, and [Spec.Leak] can make that a reason to give up.
//
// # The caller's duties
//
//   - Start returns when the whole tree is up. So a Start function should do what
//     other children depend on, and nothing that may fail in normal operation, such
//     as connecting to a remote service: start disconnected, and connect afterwards.
//   - A child ends soon after its context has ended, or after Stop.
//   - End a supervisor with Shutdown, Stop or Kill. The context given to Start
//     bounds the start only.
//   - Restarts are for unexpected errors. Handle expected errors in the child.
//
// # Guarantees
//
//   - No two instances of a child run at the same time, but for leaked ones.
//   - A child is started only when all declared before it are up, at the first
//     start and in a group's restart.
//   - A child that is slow to start or stop does not delay others: with OneForOne and Dynamic the
//     children are independent; a group's restart delays the members of the group and requests to
//     change this supervisor. Reading never waits.
//   - Calls are answered as if calls and ends of children came one after another. An answer, an
//     event, or a return from Start comes after the snapshot that shows its outcome.
//   - An instance's end is handled once. The end of an instance that the supervisor
//     itself stops never counts as a failure.
//
// Less formally: it does what OTP does, which is checked against recordings of OTP.
// Additions are off by default, except GaveUp. docs/supervision.md compares the two.
//
// # Watching
//
// [Supervisor.Snapshot] returns the whole tree at any time. [Supervisor.Subscribe]
// delivers every change as an [Event] with its reason, attempt, what is left of
// the budget, the next delay and the cause. [Config.Logger] gets the same.
//
// # Limits
//
// The budget's window is exact to the nanosecond, with an inclusive bound. A supervisor of 100,000
// children handles an event in the time one of 10 does. Each child costs about 1 kB and, if it is
// not a function or a supervisor, one goroutine that waits for its end.
package supervisor
