package supervisor

import (
	"time"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// Strategy selects the children that are restarted when one fails. Values and meaning
// are those of OTP's supervisor(3).
type Strategy uint8

const (
	// OneForOne restarts the child that failed.
	OneForOne Strategy = iota
	// OneForAll stops all others, last started first, and starts all again.
	// Use it for children that cannot do without each other.
	OneForAll
	// RestForOne stops the children started after the one that failed, last first, and starts it
	// and them again. Use it for chains, where each child depends on those before it.
	RestForOne
	// Dynamic is OTP's simple_one_for_one: Children holds one template, nothing is started at
	// first, and StartChild starts any number of copies. They are restarted one for one, stopped
	// all at once, and no spec is kept of a copy that has ended for good.
	Dynamic
)

// String returns OTP's name for the strategy, and "dynamic" for Dynamic.
func (s Strategy) String() string {
	return name(s, "one_for_one", "one_for_all", "rest_for_one", "dynamic")
}

// Restart selects the ends of a child that lead to a restart.
type Restart uint8

const (
	// Permanent children are always restarted, after a normal end too.
	Permanent Restart = iota
	// Transient children are restarted unless their end was normal, see
	// [Reason.IsNormal]. Their spec is kept.
	Transient
	// Temporary children are never restarted; their spec is deleted when they end.
	Temporary
)

// String returns OTP's name.
func (r Restart) String() string { return name(r, "permanent", "transient", "temporary") }

// AutoShutdown selects whether the end of significant children ends the supervisor. An end that the
// supervisor brought about does not count, nor does one that a restart follows.
type AutoShutdown uint8

const (
	// Never is the default.
	Never AutoShutdown = iota
	// AnySignificant ends the supervisor with the first significant child.
	AnySignificant
	// AllSignificant ends the supervisor with the last one.
	AllSignificant
)

// String returns OTP's name.
func (a AutoShutdown) String() string { return name(a, "never", "any_significant", "all_significant") }

// ChildType is a label. It sets the default of [ChildSpec.Shutdown] and how the child is counted.
type ChildType uint8

const (
	// TypeWorker is the default, but for children whose Start is a [Spec].
	TypeWorker ChildType = iota
	// TypeSupervisor marks a child that has children.
	TypeSupervisor
)

// String returns OTP's name.
func (t ChildType) String() string { return name(t, "worker", "supervisor") }

// Special values of [ChildSpec.Shutdown].
const (
	// BrutalKill kills the child without asking it to stop first.
	BrutalKill time.Duration = rules.BrutalKill
	// Infinity asks the child to stop and waits without limit.
	Infinity time.Duration = rules.Infinity
	// Immediately asks the child to stop and kills it at once: OTP's shutdown time 0.
	Immediately time.Duration = rules.Immediately
)

// DefaultShutdown is how long a worker may take to stop.
const DefaultShutdown = rules.DefaultShutdown

// Intensity is the restart budget of a supervisor, shared by all its children. After more than Max
// restart attempts within Period it gives up: it stops its children and ends. A restart of a group
// counts once; a failed attempt counts like a successful one; restarts by request do not count.
//
// The zero value means 1 in 5 s. To give up at the first failure set Max to 0
// and Period to something: Intensity{Period: 5 * time.Second}. Levels multiply:
// with three levels of 10 the lowest child is restarted 1,000 times before the
// root notices, so keep the upper levels at 1 or so.
type Intensity struct {
	Max    int           // at least 0
	Period time.Duration // the sliding window; more than 0
}

// Backoff spreads the restarts of a child over time. The zero value is none:
// as in OTP a restart follows at once.
//
// The n-th consecutive failure waits a random time between 0 and min(Max, Initial·Factor^(n-1)).
// The count n starts again at 1 when the child was up for longer than twice its latest bound and
// longer than ResetAfter. While it waits the child is [Restarting]. An attempt counts in the window
// of Intensity when it is made; since delays spread the attempts, Attempts limits how often one
// child may fail in a row.
type Backoff struct {
	Initial    time.Duration // the first bound; 0: no back-off
	Max        time.Duration // the cap; default 1 min
	Factor     float64       // at least 1; default 2
	ResetAfter time.Duration // default 0: twice the bound alone decides
	Attempts   int           // consecutive failures before giving up; 0: no limit
	NoJitter   bool          // wait the bound itself, for tests and for single children
	// AtOnce restarts a child that was up without a delay, as long as the budget of
	// Intensity lasts. Delays are for starts that fail, and for restarts over the budget.
	AtOnce bool
}

// LeakPolicy selects what follows when a function child had to be abandoned, because it
// did not end by its deadline: a goroutine cannot be killed.
type LeakPolicy uint8

const (
	// LeakReport counts and reports the leak and goes on. A restart then runs a second
	// instance beside the stuck one.
	LeakReport LeakPolicy = iota
	// LeakGiveUp makes the supervisor give up, so that no second instance runs beside
	// a stuck one unless a supervisor above restarts this one.
	LeakGiveUp
)

// String returns "report" or "give_up".
func (p LeakPolicy) String() string { return name(p, "report", "give_up") }

// Spec describes a supervisor. It is plain data but for the children's Start:
// copy it, print it, keep it in a table. A Spec is a [Starter], so a
// supervisor becomes a child by standing in another one's ChildSpec.Start.
//
// A Spec is validated as a whole, with everything below it, before anything starts; see [Validate].
type Spec struct {
	// Name is the last part of the root's path. As a child the supervisor is
	// known by its ChildSpec.ID, and Name is not used. Default: "root".
	Name         string
	Strategy     Strategy
	Intensity    Intensity
	AutoShutdown AutoShutdown
	// Backoff conflicts with OTP.
	Backoff Backoff
	Leak    LeakPolicy
	// StopTogether asks all children to stop at once when the supervisor ends, as Dynamic
	// does, instead of one after the other in reverse start order: for children that are
	// equal, such as the slots of a pool. Each has its own Shutdown; the end takes the
	// longest of them, not their sum. A group's restart keeps the order. Conflicts with OTP.
	StopTogether bool
	// StartTogether is how many children the supervisor's own start may have under way at once, in
	// their order; 0 is 1: the next one is started when the one before it is up. For children that
	// are equal and take long to start. The first that fails ends the others. Groups and restarts
	// are as without it. It needs OneForOne, and conflicts with OTP.
	StartTogether int
	// OTP selects Erlang's exact rules where this package has others by default: a
	// supervisor that gives up ends with Shutdown, which is a normal end for a transient
	// child spec, so it is not restarted.
	OTP bool
	// Persist keeps the supervisor from giving up when the budget of Intensity is used up,
	// as long as children can run: another child is up, or some child was up within Period.
	// Each further attempt waits by Backoff. The first, second, fourth, eighth … of them is
	// reported as SupervisorPersists. It needs OneForOne and a Backoff, and conflicts with OTP.
	Persist bool
	// Children are started in this order and stopped in the reverse order.
	// For Dynamic: exactly one, the template.
	Children []ChildSpec
}

// ChildSpec describes one child.
type ChildSpec struct {
	// ID is unique among the siblings; not empty, without "/".
	ID string
	// Start starts the child: [Func], a [Spec], or an adapter of another package.
	Start   Starter
	Restart Restart
	// Significant children take part in Spec.AutoShutdown. Conflicts with
	// Permanent and with AutoShutdown Never.
	Significant bool
	// Shutdown is how long the child may take to end after it was asked to
	// stop, before it is killed. 0 is the default: 5 s for a worker, Infinity
	// for a supervisor. See [BrutalKill], [Infinity] and [Immediately].
	Shutdown time.Duration
	Type     ChildType
	// StartTimeout limits how long Start may take, readiness included; a start that takes longer is
	// cancelled and has failed. 0: no limit. A start that does not react to the end of its context
	// is abandoned after another 5 s (or Shutdown, if that is longer and not Infinity), and its
	// instance is killed should it come up after all.
	StartTimeout time.Duration
}

// kind returns the child's type, which a Spec implies.
func (c ChildSpec) kind() ChildType {
	if _, ok := c.Start.(Spec); ok {
		return TypeSupervisor
	}
	return c.Type
}

// params returns the part of the spec that the rules look at. The spec is valid.
func (c ChildSpec) params() rules.Params {
	return rules.Params{
		ID:           c.ID,
		Restart:      rules.Restart(c.Restart),
		Significant:  c.Significant,
		Supervisor:   c.kind() == TypeSupervisor,
		Shutdown:     c.Shutdown,
		StartTimeout: c.StartTimeout,
	}.Resolve()
}

// flags returns the supervisor's own settings with defaults filled in. The spec is valid.
func (s Spec) flags() rules.Flags {
	return rules.Flags{
		Strategy:      rules.Strategy(s.Strategy),
		Max:           s.Intensity.Max,
		Period:        s.Intensity.Period,
		AutoShutdown:  rules.AutoShutdown(s.AutoShutdown),
		Backoff:       rules.Backoff(s.Backoff),
		LeakEscalates: s.Leak == LeakGiveUp,
		StopTogether:  s.StopTogether,
		StartTogether: s.StartTogether,
		Persist:       s.Persist,
	}.Resolve()
}
