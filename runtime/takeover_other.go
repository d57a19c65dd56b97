//go:build !linux

package coppice

import (
	"context"
	"log/slog"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/runtime/internal/handover"
	"github.com/coppice-go/coppice/runtime/internal/testrun"
)

// Off Linux no program is replaced in place.

func (spawner) takeOver(*inheritance, handover.RunningProcess, spawnRequest) (backend, error) {
	return nil, errNoProcesses
}

type spawnRequest struct{}

func (workerStart) request() (none spawnRequest) { return none }

func onMainThread(testrun.Test) error { return nil }

func (*node) canTakeOver(Isolation, string, []byte) error { return errNoProcesses }

func takeImage(*node, []string, func(error)) (*inheritance, error) { return nil, nil }

func (*inheritance) take(handover.Part) (state []byte, fds []int, err error) {
	return nil, nil, errNoProcesses
}

func refuseImage(error, *slog.Logger) {}

func (*inheritance) endTrial(error, *slog.Logger, func()) {}

func (*inheritance) openTable(cfg registry.Config) (*registry.Table, error) {
	return registry.New(cfg), nil
}

func (*inheritance) openSystem(cfg actors.Config) (*actors.System, error) {
	return actors.NewSystem(cfg)
}

func (*inheritance) firstGeneration(gs *generations, config []byte) error { return gs.first(config) }

func (*Runtime) upgrade(context.Context) error                  { return errNoProcesses }
func (*Runtime) checkUpgrade(context.Context) ([]string, error) { return nil, errNoProcesses }
