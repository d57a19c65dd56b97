package rules

// EventKind is what happened.
type EventKind uint8

// The events, and which fields of Event they use.
const (
	Begin       EventKind = iota // start the declared children; once, first
	Started                      // Key, Run: the instance is up
	StartFailed                  // Key, Run: there is no instance
	Ignored                      // Key, Run: the start declined (OTP's ignore)
	Exited                       // Key, Run, End, Leaked: the instance has ended
	Replaced                     // Key: the instance goes on as a further incarnation
	Timer                        // Key: the child's timer is due
	Request                      // Call
	Stop                         // the parent's order to end
	Kill                         // end at once, running no shutdown
	Await                        // Key, At, Counted: what is down waits for its restart, as it did before
)

// Event is one thing that happened to a supervisor.
type Event struct {
	Kind   EventKind
	Key    Key
	Run    uint64
	End    Class
	Leaked bool   // the instance was abandoned: part of it still runs
	Rand   uint64 // uniform bits for this step; only Backoff uses them
	Call   Call
	At     Time
	// Counted says that the attempt is in the window already.
	Counted bool
}

// EffectKind is what is to be done.
type EffectKind uint8

// The effects, and which fields of Effect they use besides Kind.
const (
	// Start calls the child's start function. Key, Run, Inc (the incarnation
	// it will be), Auto, Cause, From (the call behind it).
	Start EffectKind = iota
	// Cancel ends the context of a start that is still going on. Its answer
	// must still come. Key, Run, Late (its StartTimeout passed).
	Cancel
	// Abandon gives up waiting for a cancelled start. If it comes up after
	// all, it must be killed. Key, Run.
	Abandon
	// StopInstance asks the instance to stop. Key, Run, Cause.
	StopInstance
	// KillInstance kills the instance. Key, Run, Cause.
	KillInstance
	// SetTimer sets (At) or clears (At zero) the child's one timer. Key.
	SetTimer
	// Answer replies to a call. From, Reply, Key.
	Answer
	// Report is what OTP logs at error level. Key, Context, Known.
	Report
	// Retry announces a restart that was decided: Key, Attempt (consecutive
	// failures), Left (what remains of the window), Delay, Cause.
	Retry
	// Moved says that the child's Phase is another. Key.
	Moved
	// Forget says that the child's record is gone. Key.
	Forget
	// Up says that all declared children were started.
	Up
	// Terminated is the last effect: all children have ended. Why, Key.
	Terminated
)

// Context is OTP's errorContext.
type Context uint8

// The contexts of OTP's supervisor reports.
const (
	ChildTerminated Context = iota
	StartError
	ShutdownError
	GaveUp
	Persisted // no report of OTP's: it would have given up here, but for Flags.Persist
)

// Reply is the answer to a request.
type Reply uint8

// The answers of the calls of supervisor(3).
const (
	OK             Reply = iota
	OKUndefined          // the start was ignored
	AlreadyStarted       // Key holds the child
	AlreadyPresent
	NotFound
	IsRunning
	IsRestarting
	IsDynamic // a Dynamic supervisor does not offer this
	Failure   // the start failed
	NoProc    // the supervisor is ending
)

// Why is why a supervisor ended.
type Why uint8

// The ends of a supervisor.
const (
	ByOrder     Why = iota // Stop
	ByKill                 // Kill
	ByIntensity            // more than Max restarts within Period
	ByAttempts             // Backoff.Attempts consecutive failures of Key
	ByLeak                 // Key leaked, and LeakEscalates is set
	ByAuto                 // auto-shutdown, triggered by Key
	ByStart                // Key did not start, the others were rolled back
)

// Effect is one thing to be done.
type Effect struct {
	Kind      EffectKind
	Key       Key
	Run       uint64
	Inc       uint64
	Cause     Key // the child whose failure led to this; zero: an order or a request
	At        Time
	Delay     int64 // nanoseconds
	Attempt   int
	Left      int
	From      uint64
	Reply     Reply
	Context   Context
	Why       Why
	Automatic bool
	Known     bool
	TimedOut  bool
}
