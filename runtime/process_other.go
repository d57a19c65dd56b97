//go:build !linux

package coppice

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/child"
	"github.com/coppice-go/coppice/runtime/internal/output"
	"github.com/coppice-go/coppice/runtime/internal/queue"
	"github.com/coppice-go/coppice/runtime/internal/testrun"
	"github.com/coppice-go/coppice/supervisor"
)

// Without pidfds, parent-death signals and claim tables there are no processes to supervise.
// Workers can only be goroutines.

type executable struct{}

func openExecutable() (*executable, error) { return &executable{}, nil }
func (*executable) Close() error           { return nil }
func (*executable) BuildID() string        { return "" }

func openStore(*slog.Logger) descriptorStore { return nil }

func fileLimit() int { return math.MaxInt }

func executableAt(context.Context, string) (*executable, error) { return &executable{}, nil }

var errNoProcesses = fmt.Errorf("%w: process isolation needs Linux", ErrUnsupported)

// spawner starts processes.
type spawner struct {
	log    *slog.Logger
	output *queue.Queue[output.Line]
	test   testrun.Test // in which the tree runs

	maxLine int
	dumps   bool
	orphans time.Duration
	groups  *groupMetrics
}

func (spawner) fork(context.Context, workerStart) (*os.File, backend, error) {
	return nil, nil, errNoProcesses
}

func (programStarter) start(context.Context, int) (supervisor.Instance, error) {
	return nil, errNoProcesses
}

func (w *poolWorker) startProgram() error { return errNoProcesses }

func runChild(child.Config, *os.File) error { return errNoProcesses }

func keepFiles(int) {}
func keepName()     {}

func dupFile(int, string) (*os.File, error) { return nil, errNoProcesses }

// reaper reaps orphans.
type reaper struct{}

func (*reaper) Reaped() uint64 { return 0 }
func (*reaper) Close() error   { return nil }

func startReaper(_ *slog.Logger, subreaper bool) (*reaper, error) {
	if subreaper {
		return nil, fmt.Errorf("%w: a subreaper needs Linux", ErrUnsupported)
	}
	return nil, nil
}
