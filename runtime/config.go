package coppice

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/supervisor"
)

// Config describes the tree and how to run it. The zero value of each field means its default.
type Config struct {
	// Children are started in order, before [Start] returns, and stopped in reverse order. There
	// must be at least one.
	Children []ChildSpec

	// Strategy and Intensity are those of the root supervisor; the defaults are OneForOne and OTP's
	// 1 restart in 5 s. When the root gives up, the program ends.
	Strategy  supervisor.Strategy
	Intensity supervisor.Intensity

	// Load returns the configuration that every worker of a generation, replacements included, gets
	// from Worker.Config. It runs in the master, at the start and at each reload; an error ends the
	// start or the reload. At most 256 MiB; the processes of a generation share the memory of a
	// long configuration. The variables that it sets by os.Setenv are those of the generation too.
	// The directory of the master stays the one in which it runs: a file of a release that is
	// deployed by a symbolic link is named by its absolute path. [Running] has the tree, and its
	// Scale gives a pool the size that the configuration wants, at the start too. nil = no
	// configuration.
	Load func(ctx context.Context) ([]byte, error)

	// Shutdown bounds the whole shutdown that a signal or the end of Run's context begins; zero =
	// 30 s. Then what still runs is killed. It is the one number to fit into the time that
	// something outside allows: 9 s for the 10 s of docker stop, 85 s for systemd's 90 s. Pools and
	// programs stop one after the other. If their own Shutdown times add up to more than is left,
	// each has the same part of its own, so that each is asked before it is killed.
	Shutdown time.Duration

	// OrphanDrain is how long a worker may go on finishing its work after its master died, before
	// it kills itself; zero = 1 s, None = no time. Only a *stopped* worker (SIGSTOP) can outlive
	// its master by more.
	OrphanDrain time.Duration

	// Subreaper makes the master the parent of the orphans below it: the descendants that a worker
	// or a program leaves behind when it dies (prctl(2), PR_SET_CHILD_SUBREAPER). Process 1 of a
	// container is a subreaper anyway. The master reaps orphans 5 s after their end, unless this
	// program holds a pidfd for them, as os/exec does. Linux only.
	Subreaper bool

	// ListenerIsolation chooses where connections are accepted for the dispatching policies: in a
	// process that runs no user code (the default), or in the master.
	ListenerIsolation Isolation

	// Output gets what workers and programs write to their standard output and error, line by line.
	// Each line is one Write, behind the tag of its process (see Identity.Tag), unless Output is a
	// [LineWriter]; [LogOutput] makes log records of the lines. nil = the master's own standard
	// output and error. One goroutine calls Output, and Output may block. The lines that wait are
	// bounded (1 MiB, or four times MaxLine if that is more); beyond that the processes wait. When
	// Output has taken nothing for 1 s, lines are lost and counted, and a line with their number
	// stands in their place. The master does not close Output.
	Output io.Writer

	// Tags says where lines of text have the tag of their process; zero = before each line, or in
	// the line where the output goes to the journal.
	Tags Tags

	// MaxLine is the length in bytes of the longest line that Output gets whole, 1 KiB to 64 MiB;
	// zero = 64 KiB. A longer line comes in pieces.
	MaxLine int

	// Logger gets the tree's log; nil = slog.Default(). One goroutine calls its handler, which may
	// block. The records that wait are bounded (4 MiB); beyond that records are lost, and one
	// record gives their number once the handler goes on. Texts are cut at [supervisor.MaxText].
	// The tree's end waits at most 1 s for the last records. If the Logger writes to standard error
	// and the master must outlive the reader of it, the program needs Service.Signals or its own
	// signal.Notify of SIGPIPE.
	Logger *slog.Logger

	// Hosts joins the tree to trees on other hosts, from its start on: it cannot join later. Then
	// the tree has a pool gateway before its other children, and a pool member if this host runs a
	// part of the cluster's engine. A reload leaves both as they are, and so does an upgrade; then
	// [Runtime.Restart] of the gateway brings the new program, and cuts the lanes to other hosts.
	// nil = the tree is alone.
	Hosts Cluster

	Hooks Hooks

	Control Control // the endpoint for operators

	// Service is what Run does for the program besides running the tree: it handles signals and
	// notifies systemd. Main sets it; Start does not use it.
	Service Service

	starting func() (started func()) // called when the first child is to be started; nil = nothing to call
	asked    func() bool             // reports whether a signal or a context asks the tree to end; nil = neither can

	store descriptorStore // systemd's; nil when there is none

	entry string // the function that was called with it, if that is not Start: Main, Run
}

// Hooks are functions that the master calls. A panic in a hook is a panic of the program.
type Hooks struct {
	// Started runs once, when every child is up. It may block: Start waits until Started returns or
	// Start's context ends, and nothing else waits.
	Started func(rt *Runtime)

	// Crash gets a report of each child that ended otherwise than it should have. It runs on a
	// separate goroutine, one report after another, before or after the supervisor's event, and may
	// block: 64 reports wait, further reports are lost and counted. [CrashFiles] returns a function
	// that writes files.
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
	if cfg.MaxLine == 0 {
		cfg.MaxLine = 64 << 10
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
	defer warnIfSlow(cfg.Logger, unlimited, "Config.Load", "it has not returned", "hint", "the start or the reload waits for it: give its requests a timeout")()
	b, err := cfg.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("coppice: load the configuration: %w", err)
	}
	if len(b) > maxConfig {
		return nil, fmt.Errorf("coppice: load the configuration: Config.Load returned %d bytes, at most %d", len(b), maxConfig)
	}
	return b, nil
}

// A Cluster joins the tree to trees on other hosts; *hosts.Config of module actors/hosts is one.
// Its methods run in the master and in its children alike, but for RunGateway.
type Cluster interface {
	// HostName returns the name of this host, the same as long as the tree runs.
	HostName() string

	// NewBoot returns what tells this start of the host from all others, of any host: 1 to 48
	// lower-case letters and digits. It is called once a start.
	NewBoot() string

	// Validate returns what is wrong with the configuration, joined.
	Validate() error

	// RunGateway carries messages to other hosts until ctx ends. It runs in a process of its own,
	// which runs no other code of the user, or where Config.ListenerIsolation says so in the
	// master. A later gateway of the tree has a higher incarnation, and may start while the earlier
	// one lives: Listen shares the socket. RunGateway calls Ready when it can be the gateway, and
	// is it from the call of its actors.Gateway's Begin on.
	RunGateway(ctx context.Context, g actors.GatewayProcess) error

	// Member returns what runs this host's part of what the hosts agree by, until ctx ends; nil if
	// it has none. It is called in a process of its own, which runs no other code of the user.
	Member() func(ctx context.Context) error

	// Begin is called in the master before its first child starts, once more in the program of an
	// upgrade.
	Begin(ctx context.Context, rt *Runtime) error

	// Operate does in the master what an operator asks of the control endpoint: GET /v1/hosts with
	// what empty, which is answered with the result as JSON and changes nothing, and POST
	// /v1/hosts/WHAT?VALUES, of which say tells the operator how it goes on, a line a call. An
	// error that wraps [ErrUnsupported] says that there is no such thing.
	Operate(ctx context.Context, rt *Runtime, what string, values url.Values, say func(string)) (any, error)
}
