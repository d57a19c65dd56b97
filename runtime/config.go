package coppice

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/coppice-go/coppice/supervisor"
)

// Config is the tree and how it is run. The zero value of each field is its
// default.
type Config struct {
	// Children are started in order, before [Start] returns, and stopped in
	// reverse. At least one.
	Children []ChildSpec

	// Strategy and Intensity are those of the root supervisor: OneForOne and
	// OTP's 1 restart in 5 s. When the root gives up the program ends.
	Strategy  supervisor.Strategy
	Intensity supervisor.Intensity

	// Load returns the configuration that every worker of a generation gets from
	// Worker.Config, replacements included. It runs in the master, at the start and
	// at each reload, which its error ends. At most 256 MiB; the processes of a generation
	// share the memory of a long one. nil = no configuration.
	Load func(ctx context.Context) ([]byte, error)

	// Shutdown bounds the whole shutdown that a signal or the end of Run's
	// context begins; zero = 30 s. What is left then is killed.
	Shutdown time.Duration

	// OrphanDrain is how long a worker finishes what it has begun after its
	// master died, before it kills itself; zero = 1 s, None = no time. Only a
	// *stopped* worker (SIGSTOP) can outlive its master for longer.
	OrphanDrain time.Duration

	// Subreaper makes the master the parent of orphans below it: what a worker's or
	// a program's descendants leave behind when they die (prctl(2),
	// PR_SET_CHILD_SUBREAPER). Process 1 of a container is that anyway. The master
	// reaps them 5 s after their end, unless somebody in this program holds them by
	// a pidfd, as os/exec does. Linux only.
	Subreaper bool

	// ListenerIsolation is where connections are accepted for the dispatching
	// policies: in a process that runs no code of the user (the default), or in
	// the master.
	ListenerIsolation Isolation

	// Output takes what workers and programs write to their standard output and
	// error, line by line: each line is one Write, behind its writer's tag (see
	// OutputLine.Tag), unless it is a [LineWriter]; [LogOutput] makes records of
	// the log. nil = the master's own standard output and error. It is called by
	// one goroutine and may block: what waits for it is bounded (1 MiB), beyond
	// that the processes wait, and once it has taken nothing for 1 s lines are
	// lost, counted, and their number stands in their place. The master closes
	// nothing.
	Output io.Writer

	// Logger takes the tree's log; nil = slog.Default(). Its handler is called by one
	// goroutine and may block: what waits for it is bounded (4 MiB), beyond that
	// records are lost, and one record says how many once it goes on. Texts are cut at
	// [supervisor.MaxText]. The tree's end waits for the last records, at most 1 s.
	// Where the master is to outlive the reader of a standard error that it logs to,
	// it needs Service.Signals, or a signal.Notify of SIGPIPE of its own.
	Logger *slog.Logger

	Hooks Hooks

	// Service is what Run handles of the program's besides the tree: signals, systemd. Main sets
	// it; Start has no use for it.
	Service Service
}

// Hooks are called by the master. A panic in one is the program's.
type Hooks struct {
	// Started runs once, when every child is up. Start returns after it, or when its
	// context ends: it may block, and delays only that.
	Started func(rt *Runtime)

	// Crash is given a report of each child that ended otherwise than it should
	// have. It runs on a goroutine of its own, one report after another, before or
	// after the supervisor's event, and may block: 64 reports wait, more are
	// counted and lost. [CrashFiles] is one that writes files.
	Crash func(CrashReport)
}

// defaults returns cfg with every zero value replaced by its default.
func (cfg Config) defaults() Config {
	if cfg.Shutdown == 0 {
		cfg.Shutdown = 30 * time.Second
	}
	if cfg.OrphanDrain == 0 {
		cfg.OrphanDrain = time.Second
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	return cfg
}

// load runs cfg.Load.
func (cfg Config) load(ctx context.Context) ([]byte, error) {
	if cfg.Load == nil {
		return nil, nil
	}
	b, err := cfg.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("coppice: load the configuration: %w", err)
	}
	if len(b) > maxConfig {
		return nil, fmt.Errorf("coppice: load the configuration: Config.Load returned %d bytes, at most %d", len(b), maxConfig)
	}
	return b, nil
}
