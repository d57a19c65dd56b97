package coppice

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// Stacks returns where each goroutine of a process stands, as a crash would print it, and
// the process goes on: its goroutines stand still while they are written down, some
// milliseconds for a thousand. id is the [Tree.ID] of a worker, with a slot or without, or
// of the listener process; 0 is the master. For a worker that is a goroutine of the master
// it is the master's. What is beyond 1 MiB is cut off.
//
// It is an error that wraps [ErrNoChild] when there is none of that ID, the program of
// a [Process] included, and ctx's when the process does not answer: one that hangs so badly
// is ended for it, with its stacks in the crash report; see [Liveness].
func (rt *Runtime) Stacks(ctx context.Context, id int) ([]byte, error) {
	if id == 0 {
		return goroutines(), nil
	}
	p := rt.children.child(id)
	if p == nil {
		return nil, fmt.Errorf("%w: %d", ErrNoChild, id)
	}
	text, err := p.askStacks(ctx)
	if err != nil {
		return nil, fmt.Errorf("coppice: stacks of %s: %w", p.name(), err)
	}
	return []byte(text), nil
}

// goroutines returns the stacks of all goroutines of this process.
func goroutines() []byte {
	b := make([]byte, childproto.MaxStacks)
	return b[:runtime.Stack(b, true)]
}

// askStacks asks the worker for the stacks of its goroutines.
func (w *poolWorker) askStacks(ctx context.Context) (string, error) {
	call, err := w.stacks.Begin(struct{}{})
	if err != nil {
		return "", err
	}
	defer call.Cancel()
	if err := w.conn.Send(ctx, childproto.NewFrame(childproto.FrameStacks, childproto.StacksFrame{N: call.ID})); err != nil {
		if !childproto.IsEnd(err) {
			return "", err
		}
		select { // the channel breaks before the end is known
		case <-w.done():
			return "", w.endError()
		case <-time.After(deathKnownTimeout):
			return "", err
		}
	}
	text, err := call.Wait(ctx, w.done())
	if errors.Is(err, fdipc.ErrPeerLost) {
		err = w.endError()
	}
	return text, err
}

// showGoroutines prints where all goroutines stand to standard error.
func showGoroutines() {
	printLine(os.Stderr, fmt.Sprintf("coppice: SIGQUIT: the goroutines of process %d\n\n%s", os.Getpid(), goroutines()))
}

// sendStacks answers on the data lane: it is much, and what the master says comes first.
func (c *child) sendStacks(n uint64) {
	c.stacksMu.Lock() // whoever asks often does not have a MiB for each question
	defer c.stacksMu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), partingTimeout)
	defer cancel()
	f := childproto.NewFrame(childproto.FrameStacks, childproto.StacksFrame{N: n, Text: string(goroutines())})
	f.Lane = fdipc.Data
	if err := c.conn.Send(ctx, f); err != nil {
		c.log.Warn("child: the master does not take the stacks it asked for", "err", err)
	}
}
