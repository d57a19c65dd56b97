package child

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/coppice-go/coppice/netactor"
)

// ErrMasterGone is the cause of the drain of a child whose channel to the master has ended.
var ErrMasterGone = errors.New("coppice: the master is gone")

// These are the causes of the worker's context when the child stops.
var (
	errStopRequested = errors.New("coppice: asked to stop")
	errOrphan        = fmt.Errorf("%w: finishing what was begun", ErrMasterGone)
)

// Config is what a child knows before the master's hello. The child calls the functions on the
// goroutine of Run.
type Config struct {
	Logger      *slog.Logger
	OrphanDrain time.Duration // how long a child drains after its master is gone, until the hello says it

	// Configuration is the master's configuration, for a child that is a goroutine. It is here
	// because it may be too large for a hello.
	Configuration []byte

	// Tree is what this program declares of its tree, as package declaration writes it.
	Tree []string

	// Check returns nil if this program can take over a master that has left state.
	Check func(state []byte) error

	// Program returns the program of the workers of the pool at a path, or of a pool whose function
	// has a name; ok is false if there is none.
	Program func(path, function string, s *Session) (p Program, ok bool)

	// Hooks returns the functions of the listener at a path in the tree.
	Hooks func(path string) netactor.Functions

	// Short reports whether err means that this process lacks resources for a time: descriptors,
	// memory.
	Short func(err error) bool
}

// Program is what a worker runs: the functions of its pool. The values of the pool are the
// master's, and come with the hello.
type Program struct {
	Prepare func(context.Context) error // called before the worker has a slot; nil = nothing
	Run     func(context.Context) error
	Check   func(context.Context) error // nil = no check

	RequestKey func(*http.Request) string // nil = method and path
}
