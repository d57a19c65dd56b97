package child

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/supervisor"
)

// ErrMasterGone is why a child drains whose channel to the master has ended.
var ErrMasterGone = errors.New("coppice: the master is gone")

// Why a child stops: the causes of its worker's context.
var (
	errStopRequested = errors.New("coppice: asked to stop")
	errOrphan        = fmt.Errorf("%w: finishing what was begun", ErrMasterGone)
)

// Config is what a child knows before its master tells it what it is. The functions are called by
// the child's own goroutine.
type Config struct {
	Logger      *slog.Logger
	OrphanDrain time.Duration // how long a child without a master drains

	// Configuration is the master's, for a goroutine: a hello may be too small for it.
	Configuration []byte

	// Difference returns the first difference between the master's tree and this program's, or "".
	Difference func(master []string) string

	// Program returns what the pool at a path has this program run; ok is false if there is no
	// such pool.
	Program func(path string, s *Session) (p Program, ok bool)

	// Hooks returns the functions of the listener at a path in the tree.
	Hooks func(path string) netactor.Functions

	// Short reports whether err says that this process lacks something for a time: descriptors, memory.
	Short func(err error) bool
}

// Program is what a worker runs.
type Program struct {
	Prepare       func(context.Context) error // before it has a slot; nil = nothing
	Run           func(context.Context) error
	Restart       supervisor.Restart
	Check         func(context.Context) error // nil = no check
	HealthPath    string                      // "" = none
	HealthTimeout time.Duration
}
