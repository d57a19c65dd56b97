package rules

import "time"

// Key names a child within its supervisor. Keys count up from 1 and are never
// used again. Zero is no child.
type Key uint64

// Time is a point on the caller's monotonic clock, in nanoseconds.
type Time int64

// Strategy selects the children that are restarted when one ends.
type Strategy uint8

// The strategies of supervisor(3). Dynamic is OTP's simple_one_for_one.
const (
	OneForOne Strategy = iota
	OneForAll
	RestForOne
	Dynamic
)

// Restart selects the ends of a child that lead to a restart.
type Restart uint8

// The restart types of supervisor(3).
const (
	Permanent Restart = iota
	Transient
	Temporary
)

// AutoShutdown selects whether the end of significant children ends the supervisor.
type AutoShutdown uint8

// The values of supervisor(3)'s auto_shutdown.
const (
	Never AutoShutdown = iota
	AnySignificant
	AllSignificant
)

// Class is what the rules need to know of a reason.
type Class uint8

// The classes of reasons. Normal, Shutdown and ShutdownDetail are the normal
// ends of supervisor(3), restart types; the rest are failures.
const (
	Normal Class = iota
	Shutdown
	ShutdownDetail
	Killed
	Failed
)

// Fails reports whether an end of this class restarts a transient child.
func (c Class) Fails() bool { return c >= Killed }

// Special values of Params.Shutdown.
const (
	BrutalKill time.Duration = -1
	Infinity   time.Duration = -2
)

// Params is the part of a child spec that the rules look at.
type Params struct {
	ID          string // unique among the supervisor's children
	Restart     Restart
	Significant bool
	Supervisor  bool // a label: it only decides how the child is counted

	// Shutdown is how long a child may take to end after it was asked;
	// zero kills at once after asking. See BrutalKill and Infinity.
	Shutdown time.Duration
	// StartTimeout is how long a start may take; zero is no limit.
	StartTimeout time.Duration
	// StartGrace is how long a start may go on after it was cancelled before
	// it is abandoned; zero is no limit.
	StartGrace time.Duration
}

// Flags are a supervisor's own settings.
type Flags struct {
	Strategy      Strategy
	Max           int           // restarts allowed within Period; at least 0
	Period        time.Duration // more than 0
	AutoShutdown  AutoShutdown
	Backoff       Backoff // zero: restart at once, as OTP does
	LeakEscalates bool    // a child that leaked makes the supervisor give up
	StopTogether  bool    // at its end the children are stopped at once, not in reverse order
	StartTogether int     // OneForOne: children that its own start has under way at once; 0 = 1
	Persist       bool    // OneForOne: more than Max is no reason to give up while children come up
}

// Phase is the state of a child.
type Phase uint8

// The phases of a child. OTP's names for what which_children shows: Down is
// undefined, Waiting (and Starting, when Auto) is restarting, the rest a pid.
const (
	Down     Phase = iota // spec kept, nothing runs
	Starting              // Start was issued, the answer is not here yet
	Running               // up; or ended (Dead) and not yet looked at
	Stopping              // asked or killed, the end is not here yet
	Waiting               // the next restart attempt comes with the timer
)

// Child is one child's record.
type Child struct {
	Params
	Key       Key
	Pos       int    // place in the start order
	Phase     Phase  //
	Run       uint64 // number of the latest start, unique in this supervisor; tags answers
	Inc       uint64 // how many starts succeeded, replacements included: the incarnation
	Automatic bool   // Starting: by the supervisor itself, not by a request
	New       bool   // Starting: the record goes away if the start fails
	Exited    bool   // Running: Exited came, and End is its class
	End       Class
	Known     bool // a former instance is still recorded: OTP's {restarting, Pid}
	Cancelled bool // Starting: cancelled because its start timeout passed

	At       Time          // when the timer is due; zero: no timer
	UpSince  Time          // when the latest instance came up
	Failures int           // consecutive failures
	Bound    time.Duration // the current delay before jitter
	Counted  bool          // Waiting: the coming attempt is in the window already

	From  uint64 // Starting: the request to answer; zero: none
	Calls []Call // requests for this child that wait until it leaves Starting or Stopping
}

// Op is what a request asks for.
type Op uint8

// The requests that change something. Reading needs no event.
const (
	StartChild Op = iota
	TerminateChild
	RestartChild
	DeleteChild
)

// String returns the operation's name, which is that of the supervisor's method.
func (o Op) String() string {
	return [...]string{"StartChild", "TerminateChild", "RestartChild", "DeleteChild"}[o]
}

// Call is one request. From comes back with the answer, as in gen_server(3).
type Call struct {
	From   uint64
	Op     Op
	ID     string // what is addressed; Dynamic: ignored if Key is set
	Key    Key    // Dynamic: the child addressed
	Params Params // StartChild: the new child
}
