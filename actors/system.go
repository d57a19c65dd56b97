package actors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// Addresses and ids with a meaning of their own.
const (
	nameAddress      = "@"        // the PID's id is a registered name
	askID            = "ask$"     // the PID's RequestId is an ask that waits for its answer
	processID        = "process$" // the process itself
	foreignWatcherID = "monitor$" // watches local actors that this package did not spawn
)

// Config configures a System. It is plain data; the zero value of each field
// but Address is the default.
type Config struct {
	// Address is the process's address: its ID in the tree, never used before.
	// 1 to 255 bytes, without '@', '/', '$' and control characters. Required.
	Address string
	// Incarnation tells this process from an earlier one with the same address.
	// Peers attach it with the same number. Frames of another incarnation are refused.
	Incarnation uint64
	// Logger. Nil: slog.Default.
	Logger *slog.Logger
	// SendWait bounds how long a Send that has no context waits: that of an
	// actor, when the channel or a bounded mailbox is full. Default 5 s.
	SendWait time.Duration
	// DeadLetters is how many of the latest dead letters [System.DeadLetters]
	// keeps. Default 100.
	DeadLetters int

	Hooks Hooks
}

// Hooks are called by a System. Nil hooks are not. A panic in one is logged.
type Hooks struct {
	// Stop is called, once, on a goroutine of its own, when the process is asked
	// to stop by a Stop of its process PID; from is the address of the process that
	// asked, so that a master can refuse its children. It may block.
	Stop func(from string)
	// Reserved, in a master, reports whether a name is the tree's own: a child that
	// registers it gets [ErrReserved]. It is called by any goroutine, and must not block.
	Reserved func(name string) bool
	// DeadLetter is called for each dead letter, on the goroutine that made it.
	// It must not block.
	DeadLetter func(d DeadLetter)
}

func (cfg *Config) validate() error {
	var errs []error
	if err := checkName(cfg.Address); err != nil || len(cfg.Address) > wire.MaxAddress {
		errs = append(errs, fmt.Errorf("Address %q: %w", cfg.Address, cmp.Or(err, ErrName)))
	}
	if cfg.SendWait < 0 {
		errs = append(errs, fmt.Errorf("SendWait %v: negative", cfg.SendWait))
	}
	if cfg.DeadLetters < 0 {
		errs = append(errs, fmt.Errorf("DeadLetters %d: negative", cfg.DeadLetters))
	}
	cfg.SendWait = cmp.Or(cfg.SendWait, 5*time.Second)
	cfg.DeadLetters = cmp.Or(cfg.DeadLetters, 100)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if len(errs) > 0 {
		return fmt.Errorf("actors: config: %w", errors.Join(errs...))
	}
	return nil
}

// checkName says whether an actor, a process or a registered name may be called s.
func checkName(s string) error {
	if s == "" || len(s) > 255 || !utf8.ValidString(s) {
		return ErrName
	}
	for _, r := range s {
		if r < ' ' || r == 0x7f || r == '$' || r == '@' {
			return ErrName
		}
	}
	return nil
}

// System is the actor system of one process. All methods may be called by any
// goroutine at any time, from within actors too; those with a context may block.
//
// Locks: mu, asks.mu, monitors.mu, dead.mu, those of each incarnation, mailbox and peer are
// leaves: none is held while another is taken, nor across a callback.
type System struct {
	cfg Config
	log *slog.Logger

	once           sync.Once // makes sys
	sys            atomic.Pointer[actor.ActorSystem]
	incarnations   incarnationTable
	foreignWatcher foreignWatcher

	asks     askTable
	monitors monitors
	inbound  inbound
	dead     deadLetters
	names    names

	mu             sync.RWMutex
	peers          map[string]*peer  // attached processes, and lanes, by address
	uplink         string            // the master; "": this is it
	endedProcesses endedProcesses    // processes that have ended, with their exit reasons
	brokenLanes    map[string]uint64 // address -> number of the newest lane that was given up

	recentPeers [16]atomic.Pointer[peer] // some of peers

	lanes      map[addressPair]uint64 // of the master: the newest lane between two children
	laneNumber uint64
	laneEnds   func(a, b Conn) (*fdipc.Handle, *fdipc.Handle, error)
	laneGrace  time.Duration

	stopOnce  sync.Once // Hooks.Stop
	closed    atomic.Bool
	spawning  sync.RWMutex // held for reading while an actor is registered, for writing to refuse more
	leaked    atomic.Int64
	refused   atomic.Uint64
	malformed atomic.Uint64
	lost      atomic.Uint64
}

// NewSystem returns the actor system of this process. It costs next to nothing:
// protoactor's own system (3 ms, 2.9 MB) is made when the first actor is spawned
// or [System.Actor] is called.
func NewSystem(cfg Config) (*System, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	s := &System{cfg: cfg, log: cfg.Logger, peers: make(map[string]*peer), brokenLanes: make(map[string]uint64), lanes: make(map[addressPair]uint64), laneGrace: defaultLaneGrace, laneEnds: laneEnds}
	s.asks.open = make(map[uint32]*pendingAsk)
	s.monitors.open = make(map[uint64]*Monitor)
	s.incarnations.init()
	s.inbound.init()
	s.names.init(s)
	s.dead.limit = cfg.DeadLetters
	s.foreignWatcher.init(s)
	return s, nil
}

// Address returns the process's address.
func (s *System) Address() string { return s.cfg.Address }

// Logger returns the logger the system was given.
func (s *System) Logger() *slog.Logger { return s.log }

// Actor returns protoactor's system and makes it if it does not exist. It is the
// way to what this package does not offer. Actors spawned through it directly
// take and send messages across processes like all others, but they have
// protoactor's supervision: see the package comment for what it can not do. Do not change
// its ProcessRegistry, do not call its Shutdown.
func (s *System) Actor() *actor.ActorSystem {
	s.once.Do(func() {
		sys := actor.NewActorSystem(
			// Protoactor's own logger prints dead letters with their contents.
			actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger {
				return slog.New(warnHandler{s.log.Handler()}).With(slog.String("lib", "protoactor"))
			}),
			actor.WithDeadLetterThrottleCount(0),
			actor.WithDeadLetterThrottleInterval(time.Nanosecond),
		)
		// Before the first Spawn: a PID copies the address, the resolvers' list is
		// not synchronised.
		sys.ProcessRegistry.Address = s.cfg.Address
		sys.ProcessRegistry.RegisterAddressResolver(s.resolve)
		sys.ProcessRegistry.Add(askReplies{s}, askID)
		sys.ProcessRegistry.Add(ownProcess{s}, processID)
		sys.ProcessRegistry.Add(&s.foreignWatcher, foreignWatcherID)
		sys.EventStream.Subscribe(s.protoactorDeadLetter)
		s.sys.Store(sys)
	})
	return s.sys.Load()
}

// protoIfMade returns protoactor's system if there is one.
func (s *System) protoIfMade() *actor.ActorSystem { return s.sys.Load() }

// resolve is the AddressResolver: one Process for every PID that is not ours.
// A PID keeps what it resolved to for ever, so that it must hold for ever;
// [router] looks the address or the name up for each message.
func (s *System) resolve(*actor.PID) (actor.Process, bool) { return router{s}, true }

func (s *System) local(pid *actor.PID) bool { return pid.Address == s.cfg.Address }

// Stats are counters since the system was made, and gauges.
type Stats struct {
	Actors      int    // live actors spawned by this package
	Waiting     int    // messages in their mailboxes
	Leaked      int    // handlers that go on after their actor was killed
	Asks        int    // asks of this process that wait
	Monitors    int    // monitors of this process that have not fired
	Lanes       int    // open channels to siblings; in the master, between children
	DeadLetters uint64 // messages that reached nobody
	Refused     uint64 // frames of processes or incarnations that are not attached, or that they may not send
	Malformed   uint64 // frames that could not be read
	Lost        uint64 // notices (Down, failed asks) dropped because a live peer left 65,536 of them unread
}

// Stats returns the system's counters.
func (s *System) Stats() Stats {
	st := Stats{
		Leaked:      int(s.leaked.Load()),
		Asks:        s.asks.count(),
		Monitors:    s.monitors.count(),
		DeadLetters: s.dead.count(),
		Refused:     s.refused.Load(),
		Malformed:   s.malformed.Load(),
		Lost:        s.lost.Load(),
	}
	s.incarnations.each(func(inc *incarnation) {
		st.Actors++
		st.Waiting += inc.box.UserMessageCount()
	})
	s.mu.RLock()
	defer s.mu.RUnlock()
	st.Lanes = len(s.lanes)
	for _, p := range s.peers {
		if p.lane && !p.pending() {
			st.Lanes++
		}
	}
	return st
}

// Shutdown stops all actors of this process, all at once, and waits for them
// under ctx; those that have not ended then are killed, and Shutdown returns an
// error that names them. All asks fail, and every call answers [ErrClosed] from
// its beginning. Attached Conns are dropped, not closed; lanes are closed. An order of stopping is the business of
// the supervisor above.
func (s *System) Shutdown(ctx context.Context) error {
	s.spawning.Lock()
	again := s.closed.Swap(true)
	s.spawning.Unlock()
	if again {
		return nil
	}
	var cells []*incarnation
	s.incarnations.each(func(inc *incarnation) { cells = append(cells, inc) })
	for _, inc := range cells {
		inc.stop(shutdown)
	}
	var errs []error
	for _, inc := range cells {
		select {
		case <-inc.done:
			continue
		default:
		}
		select {
		case <-inc.done:
		case <-ctx.Done():
			inc.kill(killed)
			errs = append(errs, fmt.Errorf("actor %s: %w", inc.id, context.Cause(ctx)))
		}
	}
	s.mu.Lock()
	links := s.peers
	s.peers = make(map[string]*peer)
	s.mu.Unlock()
	var lanes []*fdipc.Conn
	for _, p := range links {
		if c := p.close(errorReason(ErrClosed)); c != nil {
			lanes = append(lanes, c)
		}
	}
	for _, c := range lanes {
		select {
		case <-c.Done():
		case <-ctx.Done():
			errs = append(errs, fmt.Errorf("a lane: %w", context.Cause(ctx)))
		}
	}
	s.stopAnnouncing()
	s.asks.failAll(ErrClosed)
	s.monitors.fireAll(errorReason(ErrClosed))
	if sys := s.protoIfMade(); sys != nil {
		sys.Shutdown()
	}
	if len(errs) > 0 {
		return fmt.Errorf("actors: shutdown: %w", errors.Join(errs...))
	}
	return nil
}

// warnHandler passes on what protoactor says at level Warn and above. Below that it
// speaks of dead letters and panics, which this package reports itself.
type warnHandler struct{ slog.Handler }

func (q warnHandler) Enabled(ctx context.Context, l slog.Level) bool {
	return l >= slog.LevelWarn && q.Handler.Enabled(ctx, l)
}

func (q warnHandler) WithAttrs(as []slog.Attr) slog.Handler {
	return warnHandler{q.Handler.WithAttrs(as)}
}
func (q warnHandler) WithGroup(name string) slog.Handler {
	return warnHandler{q.Handler.WithGroup(name)}
}
