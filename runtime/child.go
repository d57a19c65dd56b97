package coppice

import (
	"context"

	"github.com/coppice-go/coppice/runtime/internal/child"
)

// childConfig returns what a child of a tree needs from this program.
func (cfg Config) childConfig(root *node) child.Config {
	return child.Config{
		Logger:      cfg.Logger,
		OrphanDrain: cfg.OrphanDrain,
		Difference:  func(master []string) string { return difference(master, root.describe()) },
		Hooks:       root.functions,
		Short:       func(err error) bool { return isShort(asShortage(err)) },
		Program: func(path string, s *child.Session) (child.Program, bool) {
			p, ok := root.find(path).spec.(Pool)
			return p.program(&Worker{s}), ok
		},
	}
}

// program returns what w runs.
func (p Pool) program(w *Worker) child.Program {
	h := p.Liveness.defaults()
	program := child.Program{Restart: p.Restart, HealthPath: h.Path, HealthTimeout: h.Timeout}
	program.Run = func(ctx context.Context) error { return p.Worker(ctx, w) }
	if p.Prepare != nil {
		program.Prepare = func(ctx context.Context) error { return p.Prepare(ctx, w) }
	}
	if h.Check != nil {
		program.Check = func(ctx context.Context) error { return h.Check(ctx, w) }
	}
	return program
}
