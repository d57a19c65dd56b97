package actors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/foreign"
	"github.com/coppice-go/coppice/actors/internal/wire"
)

// Config configures a System. It is plain data; the zero value of each field but Address is the
// default.
type Config struct {
	// Address is the process's address: its ID in the tree, never used before. 1 to 255 bytes,
	// without '@', '/', '$' and control characters. Required.
	Address string
	// Host is the name of this host in its cluster. Then Address is boot.id: the boot, 1 to 64
	// letters and digits, is one that no host had before, and the master's id is 0. Empty: there is
	// no cluster.
	Host string
	// Incarnation tells this process from an earlier one with the same address. Peers attach it
	// with the same number. Frames of another incarnation are refused.
	Incarnation uint64
	// Logger. Nil: slog.Default.
	Logger *slog.Logger
	// SendWait bounds how long a Send that has no context waits: that of an actor, when the channel
	// or a bounded mailbox is full. Default 5 s.
	SendWait time.Duration
	// DeadLetters is how many of the latest dead letters [System.DeadLetters] keeps. Default 100.
	DeadLetters int

	Hooks Hooks
}

// Hooks are called by a System. Nil hooks are not. A panic in one is logged.
type Hooks struct {
	// Stop is called, once, on a goroutine of its own, when the process is asked to stop by a Stop
	// of its process PID; from is the address of the process that asked, so that a master can
	// refuse its children. It may block.
	Stop func(from string)
	// Reserved, in a master, reports whether a name is the tree's own: a child that registers it
	// gets [ErrReserved]. It is called by any goroutine, and must not block.
	Reserved func(name string) bool
	// DeadLetter is called for each dead letter, on the goroutine that made it. It must not block.
	DeadLetter func(d DeadLetter)
}

func (cfg *Config) validate() error {
	var errs []error
	if err := checkName(cfg.Address); err != nil || len(cfg.Address) > wire.MaxAddress {
		errs = append(errs, fmt.Errorf("Address %q: %w", cfg.Address, cmp.Or(err, ErrName)))
	}
	if cfg.Host != "" && (checkName(cfg.Host) != nil || foreign.Boot(cfg.Address) == "") {
		errs = append(errs, fmt.Errorf("Host %q, of Address %q: %w, or no boot", cfg.Host, cfg.Address, ErrName))
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

// System is the actor system of one process. All methods may be called by any goroutine at any
// time, from within actors too; those with a context may block.
//
// It is composed of parts, each with its own lock. The locks are leaves: none is held while another
// is taken, nor across a callback.
type System struct {
	*parts
	router *router      // sends
	frames *frameReader // receives

	restored *systemState // until Resume; nil: it was not restored
}

// parts own the state of a System.
type parts struct {
	*localProcess
	proto    *protoSystem // protoactor's system
	local    *localActors // the actors of this process
	asks     *askTable    // what this process asks others
	monitors *monitors    // what this process watches
	names    *names       // registered names, or the master's word on them
	inbound  *inbound     // what others ask and watch here
	dead     *deadLetters
	peers    *peers // the channels to other processes, lanes too
}

// NewSystem returns the actor system of this process. It costs next to nothing: protoactor's own
// system (3 ms, 2.9 MB) is made when the first actor is spawned or [System.Actor] is called.
func NewSystem(cfg Config) (*System, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	proc := &localProcess{address: cfg.Address, host: cfg.Host, incarnation: cfg.Incarnation, sendWait: cfg.SendWait, log: cfg.Logger}
	if proc.host != "" {
		proc.boot = foreign.Boot(cfg.Address)
	}
	p := &parts{localProcess: proc}
	r := &router{p}
	frames := &frameReader{parts: p, router: r}
	stop := stopHook(proc, cfg.Hooks.Stop)

	p.dead = &deadLetters{proc: proc, limit: cfg.DeadLetters, hook: cfg.Hooks.DeadLetter}
	p.proto = newProtoSystem(proc)
	p.local = newLocalActors(proc, p.proto, r, stop)
	p.inbound = newInbound(p.local.unwatch)
	p.peers = newPeers(proc, frames)
	p.asks = newAskTable(proc.address, p.peers.giveUpAsk)
	p.monitors = newMonitors(proc, p.local, p.peers, r.locate)
	p.names = newNames(proc, p.local, p.peers, p.monitors, p.asks, cfg.Hooks.Reserved)

	p.proto.setUp = func(sys *actor.ActorSystem) {
		// Before the first Spawn: the resolvers' list is not synchronised.
		//
		// The resolver gives one Process for every PID that is not of this process. A PID keeps
		// what it resolved to for ever, so that it must hold for ever: routedProcess looks the
		// address or the name up for each message.
		sys.ProcessRegistry.RegisterAddressResolver(func(*actor.PID) (actor.Process, bool) { return routedProcess{r}, true })
		sys.ProcessRegistry.Add(askReplies{r.answer}, askID)
		sys.ProcessRegistry.Add(ownProcess{r, stop}, processID)
		sys.EventStream.Subscribe(p.dead.recordProtoactors)
	}
	return &System{p, r, frames, nil}, nil
}

// stopHook returns a function that calls the Stop hook, the first time that it is called.
func stopHook(proc *localProcess, hook func(from string)) func(from string) {
	var once sync.Once
	return func(from string) {
		once.Do(func() {
			if hook != nil {
				// Ends when the hook returns; the process ends after it.
				go proc.recoverHook("Stop hook", func() { hook(from) })
			}
		})
	}
}

// Address returns the process's address.
func (s *System) Address() string { return s.address }

// Logger returns the logger the system was given.
func (s *System) Logger() *slog.Logger { return s.log }

// Actor returns protoactor's system and makes it if it does not exist. It is the way to what this
// package does not offer. Actors that are spawned through it directly send and receive messages
// across processes like all others, but they have protoactor's supervision: see the package comment
// for its limits. Do not change its ProcessRegistry, do not call its Shutdown.
func (s *System) Actor() *actor.ActorSystem { return s.proto.system() }

// Stats are counters since the system was made, and gauges.
type Stats struct {
	Actors      int    // live actors spawned by this package
	Waiting     int    // messages in their mailboxes
	Leaked      int    // handlers that go on after their actor was killed
	Asks        int    // asks of this process that wait
	Monitors    int    // monitors of this process that have not fired
	Lanes       int    // open channels to siblings; in the master, between children
	DeadLetters uint64 // messages that reached no actor
	Refused     uint64 // frames of processes or incarnations that are not attached, or that they may not send
	Malformed   uint64 // frames that could not be read
	Lost        uint64 // notices (Down, failed asks) dropped because a live peer left 65,536 of them unread
}

// Stats returns the system's counters.
func (s *System) Stats() Stats {
	st := Stats{
		Leaked:      int(s.leaked.Load()),
		Asks:        s.asks.calls.Len(),
		Monitors:    s.monitors.count(),
		Lanes:       s.peers.lanes(),
		DeadLetters: s.dead.count(),
		Refused:     s.refused.Load(),
		Malformed:   s.malformed.Load(),
		Lost:        s.lost.Load(),
	}
	s.local.table.each(func(inc *incarnation) {
		st.Actors++
		st.Waiting += inc.box.UserMessageCount()
	})
	return st
}

// DeadLetters returns how many messages reached no actor since the system was made, and the latest
// of them, oldest first.
func (s *System) DeadLetters() (total uint64, latest []DeadLetter) { return s.dead.latest() }

// Shutdown stops all actors of this process, all at once, and waits for them under ctx; those that
// have not ended then are killed, and Shutdown returns an error that names them. All asks fail, and
// every call answers [ErrClosed] from its beginning. Attached Conns are dropped, not closed; lanes
// are closed. An order of stopping is the business of the supervisor above.
func (s *System) Shutdown(ctx context.Context) error {
	if !s.local.refuse() {
		return nil
	}
	s.local.table.each(func(inc *incarnation) { inc.box.release() })
	errs := append(s.local.stopAll(ctx), s.peers.closeAll(ctx)...)
	s.asks.failAll(ErrClosed)
	s.monitors.fireAll(errorReason(ErrClosed))
	if sys := s.proto.ifMade(); sys != nil {
		sys.Shutdown()
	}
	if len(errs) > 0 {
		return fmt.Errorf("actors: shutdown: %w", errors.Join(errs...))
	}
	return nil
}
