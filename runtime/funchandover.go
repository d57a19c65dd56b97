package coppice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/coppice-go/coppice/runtime/internal/handover"
)

// maxFuncState is the longest state that a Func may hand over.
const maxFuncState = 1 << 20

// HandOver leaves the state of a [Func] for its run in the program that replaces this one by
// [Runtime.Upgrade], which has it by [TakeOver]: ctx is that of its Run, or made of it. A Func that
// is stopped for an upgrade calls it when ctx has ended, before it returns. Of several calls the
// last counts, and each other end of Run leaves nothing. If the upgrade fails, the next run in this
// program has the state.
//
// version is the program's number for how state is encoded: the program before and the one after
// may meet it, for an upgrade can go back. HandOver copies state, which has at most 1 MiB: beyond
// that it returns an error, and an upgrade that has stopped the Func fails.
func HandOver(ctx context.Context, version int, state []byte) error {
	run, is := ctx.Value(funcRun{}).(*funcRun)
	if !is {
		return errors.New("coppice: HandOver: ctx is not that of a Func")
	}
	run.of.mu.Lock()
	defer run.of.mu.Unlock()
	run.left, run.err = &handover.FuncState{Version: version, State: slices.Clone(state)}, nil
	if len(state) > maxFuncState {
		run.left, run.err = nil, fmt.Errorf("coppice: HandOver: the state has %d bytes, more than %d", len(state), maxFuncState)
	}
	return run.err
}

// TakeOver returns what a [Func] has left by [HandOver] when it was stopped for an upgrade, to the
// first run after it: ctx is that of its Run, or made of it. ok is false if there is nothing. The
// caller owns state.
func TakeOver(ctx context.Context) (version int, state []byte, ok bool) {
	if run, is := ctx.Value(funcRun{}).(*funcRun); is && run.taken != nil {
		return run.taken.Version, slices.Clone(run.taken.State), true
	}
	return 0, nil, false
}

// A funcRun is a run of a Func. Its zero value is the key of the one that a context belongs to.
type funcRun struct {
	of    *funcStates
	taken *handover.FuncState // immutable; nil = nothing
	left  *handover.FuncState // this and err are guarded by of.mu
	err   error
}

// funcStates are the states that Funcs hand over, by their paths.
type funcStates struct {
	mu   sync.Mutex
	runs map[string]*funcRun            // the latest
	kept map[string]*handover.FuncState // for the run to come
}

// takeOver takes the states that the image before has left.
func (s *funcStates) takeOver(left []handover.FuncState) {
	for _, f := range left {
		s.kept[f.Path] = &f
	}
}

// run makes f the Run of the Func at a path.
func (s *funcStates) run(path string, f func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		s.mu.Lock()
		run := &funcRun{of: s, taken: s.kept[path]}
		delete(s.kept, path)
		s.runs[path] = run
		s.mu.Unlock()
		return f(context.WithValue(ctx, funcRun{}, run))
	}
}

// keep keeps what the Func at a path, which has been stopped, has left.
func (s *funcStates) keep(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	run := s.runs[path]
	if run == nil {
		return nil // it has not begun
	}
	if run.left != nil {
		run.left.Path = path
		s.kept[path] = run.left
	}
	return run.err
}

// all returns what is kept.
func (s *funcStates) all() (all []handover.FuncState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.kept {
		all = append(all, *f)
	}
	return all
}
