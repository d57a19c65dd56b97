package coppice

import (
	"context"
	"fmt"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/stacks"
)

// Stacks returns the stacks of all goroutines of a process, as a crash would print them. The
// process goes on; its goroutines stand still while their stacks are written, some milliseconds for
// a thousand. id is the [Tree.ID] of a worker, with or without a slot, or of the listener process;
// 0 is the master. A worker that is a goroutine returns the master's stacks. Text beyond 1 MiB is
// cut off.
//
// If no process has that ID, the error wraps [ErrNoChild]; the program of a [Process] has none. If
// the process does not answer, the error is ctx's. A process that hangs so badly is ended for it,
// with its stacks in the crash report; see [Liveness].
func (rt *Runtime) Stacks(ctx context.Context, id int) ([]byte, error) {
	if id == 0 {
		return stacks.Take(), nil
	}
	p := rt.children.child(id)
	if p == nil {
		return nil, fmt.Errorf("%w: %d", ErrNoChild, id)
	}
	answer, err := p.askStacks(ctx, childproto.StacksFrame{})
	if err != nil {
		return nil, fmt.Errorf("coppice: stacks of %s: %w", p.name(), err)
	}
	return []byte(answer.Text), nil
}
