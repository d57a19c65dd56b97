package supervisor

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// Config is what a tree needs besides its spec. The zero value will do. It
// holds for all supervisors of the tree.
type Config struct {
	// Logger gets every event but notes: at error level what OTP reports at error
	// level, at info level starts, restarts and ends of children and of the tree, and
	// the rest at debug level. Default: slog.Default(); for none, use
	// slog.DiscardHandler. Its handler runs on the supervisors' goroutines: one that
	// blocks delays them, and it must not wait for a call on a supervisor of the tree.
	Logger *slog.Logger
	// Observe is called with each event, before the log has it; nil = not. It runs on
	// the supervisors' goroutines, must not block, and may be called by several at once.
	Observe func(Event)
	// Clock is the time that the supervisors use. Default: the system's. (The
	// 100 ms that a killed function has to notice are always the system's.)
	Clock Clock
	// Rand returns uniform bits for the jitter of Backoff. It is called on the
	// supervisors' goroutines. Default: math/rand/v2.
	Rand func() uint64
	// Books are those of supervisors whose places those of this tree take, by path: what
	// [Supervisor.Books] has returned in the image of the program before this one.
	Books map[string]Book
}

// Supervisor is a running supervisor. All methods may be called from any
// goroutine, also from the functions of its children; but a child that calls Shutdown
// waits for its own end, until its shutdown time is over.
//
// A Supervisor is an [Instance] of the supervisor above it.
type Supervisor struct {
	base
	cfg       Config
	spec      Spec
	path      string
	epoch     time.Time       // rules.Time is counted from here
	childCtx  context.Context // values for the children; never ends
	publisher publisher
	tree      *tree // shared with the supervisors above and below
	book      *Book // of the one before it; nil if there was none
	inbox     inbox
	view      atomic.Pointer[view] // the latest snapshot; written by the loop

	allUp  chan struct{} // closed when all declared children are up
	done   chan struct{} // closed when all has ended
	reason Reason        // set before done is closed
	failed error         // a *StartError, set before done is closed

	loop loop // owned by the goroutine that runs it
}

// Start validates spec, starts a supervisor and its children, one after
// another in order, and returns when all are up. If one does not start, those
// that had started are stopped in reverse order, and the *StartError is
// returned; there is no retry. Faults of the spec are *SpecError values, joined.
//
// The end of ctx before Start has returned cancels the start, with the same
// roll-back. Afterwards only its values are used: children inherit them. The
// caller owns the supervisor and ends it with Shutdown, Stop or Kill.
func Start(ctx context.Context, spec Spec, cfg Config) (*Supervisor, error) {
	if err := Validate(spec); err != nil {
		return nil, err
	}
	s := newSupervisor(ctx, spec, cfg.withDefaults(), cmp.Or(spec.Name, defaultName), nil)
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

func (cfg Config) withDefaults() Config {
	cfg.Logger = cmp.Or(cfg.Logger, slog.Default())
	if cfg.Clock == nil {
		cfg.Clock = systemClock{}
	}
	if cfg.Rand == nil {
		cfg.Rand = rand.Uint64
	}
	return cfg
}

// Start makes a Spec a [Starter]: it starts the supervisor as a child of the one that calls it,
// whose Config it shares. Called by anything else it is [Start] with a zero Config.
func (spec Spec) Start(ctx context.Context, inc Incarnation) (Instance, error) {
	up, ok := ctx.Value(parentKey{}).(*Supervisor)
	if !ok {
		spec.Name = cmp.Or(spec.Name, inc.ID)
		s, err := Start(ctx, spec, Config{})
		if err != nil {
			return nil, err // not a nil *Supervisor in an Instance
		}
		return s, nil
	}
	s := newSupervisor(ctx, spec, up.cfg, inc.Path, up)
	if err := s.start(ctx); err != nil {
		return nil, err
	}
	return s, nil
}

// parentKey is the context key under which a start finds its supervisor.
type parentKey struct{}

// newSupervisor returns a supervisor whose spec is valid, below another one or, with nil, as the
// root.
func newSupervisor(ctx context.Context, spec Spec, cfg Config, path string, up *Supervisor) *Supervisor {
	s := &Supervisor{
		cfg:   cfg,
		spec:  spec,
		path:  path,
		epoch: cfg.Clock.Now(),
		allUp: make(chan struct{}),
		done:  make(chan struct{}),
	}
	s.childCtx = context.WithValue(context.WithoutCancel(ctx), parentKey{}, s)
	if up != nil {
		s.publisher.parent, s.tree = &up.publisher, up.tree
	} else {
		s.tree = &tree{running: make(map[string]*Supervisor), books: maps.Clone(cfg.Books)}
	}
	s.inbox.wake = make(chan struct{}, 1)
	s.book = s.tree.take(s)
	return s
}

// start starts a new supervisor and waits until its children are up.
func (s *Supervisor) start(ctx context.Context) error {
	s.loop.init(s)
	s.tree.add(s)
	// Owned by the caller through s: ends with the supervisor, which Stop
	// or Kill bring about, and closes done as its last act.
	go s.loop.run()

	select {
	case <-s.allUp:
		return nil
	case <-s.done:
	case <-ctx.Done():
		s.Stop()
		<-s.done
	}
	if s.failed != nil {
		return s.failed
	}
	return &StartError{Path: s.path, Err: cmp.Or(context.Cause(ctx), error(ErrStopped))}
}

// Path returns the supervisor's place in the tree: the IDs from the root down, joined by "/".
func (s *Supervisor) Path() string { return s.path }

func (s *Supervisor) id() string {
	return s.path[strings.LastIndexByte(s.path, '/')+1:]
}

// Done is closed when the supervisor and all its children have ended.
func (s *Supervisor) Done() <-chan struct{} { return s.done }

// Reason returns how the supervisor ended: Shutdown, Killed or GaveUp. Valid after Done.
func (s *Supervisor) Reason() Reason {
	select {
	case <-s.done:
		return s.reason
	default:
		return Reason{}
	}
}

// Wait waits for the supervisor's end and returns its Reason as an error: nil
// if that was Shutdown. The end of ctx ends the wait only.
func (s *Supervisor) Wait(ctx context.Context) error {
	select {
	case <-s.done:
		return s.reason.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Shutdown stops the children, last started first, each within its own shutdown time, and waits for
// the end. If ctx ends before, everything is killed, Shutdown does not wait for it, and returns
// ctx's error. It returns nil also if the supervisor had ended before, for whatever reason.
func (s *Supervisor) Shutdown(ctx context.Context) error {
	s.Stop()
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		s.Kill()
		return s.callError("Shutdown", "", ctx.Err())
	}
}

// Stop asks the supervisor to end, as Shutdown does, and does not wait. Idempotent.
func (s *Supervisor) Stop() { s.inbox.post(message{kind: rules.Stop}) }

// Kill ends the supervisor and everything below it by force, in no order and without
// asking, and does not wait. Idempotent.
func (s *Supervisor) Kill() { s.inbox.post(message{kind: rules.Kill}) }

// Status returns the supervisor's own state, as Snapshot has it.
func (s *Supervisor) Status() Status { return s.view.Load().node.Status }

// Snapshot returns the whole tree as it stands: this supervisor's part as of
// its latest change, likewise each supervisor's below it. It never waits.
func (s *Supervisor) Snapshot() Node { return s.view.Load().tree(s.rulesTime(s.cfg.Clock.Now())) }

// rulesTime returns a time as the rules have it.
func (s *Supervisor) rulesTime(t time.Time) rules.Time { return rules.Time(t.Sub(s.epoch)) + 1 }

// timeOf is the reverse of rulesTime.
func (s *Supervisor) timeOf(t rules.Time) time.Time { return s.epoch.Add(time.Duration(t - 1)) }

// Subscribe returns a subscription to the events of this supervisor and those below it, with room
// for n events, at least 1. The caller closes it, unless it reads to the end.
func (s *Supervisor) Subscribe(n int) *Subscription { return s.publisher.subscribe(n) }

// onDone calls f once when the supervisor has ended.
func (s *Supervisor) onDone(f func()) {
	if !s.inbox.post(message{do: func() { s.loop.notify = append(s.loop.notify, f) }}) {
		<-s.done // closed soon after the mailbox
		f()
	}
}

var errNoInstance = errors.New("Start returned neither an instance nor an error")
