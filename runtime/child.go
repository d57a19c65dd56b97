package coppice

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/child"
)

// childConfig returns what a child of a tree needs from this program, which declares the lines of
// declared.
func (root *node) childConfig(log *slog.Logger, orphanDrain time.Duration, declared []string) child.Config {
	return child.Config{
		Logger:      log,
		OrphanDrain: orphanDrain,
		Tree:        declared,
		Hooks:       root.functions,
		Short:       func(err error) bool { return isShort(asShortage(err)) },
		Program: func(path, function string, s *child.Session) (child.Program, bool) {
			p := Pool{Function: function} // of a pool that was added at run time
			if at := root.find(path); at != nil {
				if declared, ok := at.spec.(Pool); ok && declared.Function == function {
					p = declared
				}
			}
			return p.program(&Worker{c: s}), p.run() != nil
		},
	}
}

// program returns what w runs.
func (p Pool) program(w *Worker) child.Program {
	run := p.run()
	program := child.Program{RequestKey: p.Poison.Key, Run: func(ctx context.Context) error { return w.explain(run(ctx, w)) }}
	if p.Prepare != nil {
		program.Prepare = func(ctx context.Context) error { return p.Prepare(ctx, w) }
	}
	if check := p.Liveness.Check; check != nil {
		program.Check = func(ctx context.Context) error { return check(ctx, w) }
	}
	return program
}

// inherit looks once for the channel that a child of the tree was started with.
var inherit = sync.OnceValue(func() (in struct {
	channel *os.File
	env     map[string]string
	ok      bool
	err     error
},
) {
	in.channel, in.env, in.ok, in.err = fdipc.Inherited()
	return in
})

// IsChild reports whether this process was started as a child of a tree. The code before Main, Run
// or Start runs there too.
func IsChild() bool {
	in := inherit()
	return in.ok || in.err != nil
}
