package coppice

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math"
	"strings"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/history"
	"github.com/coppice-go/coppice/supervisor"
)

// maxEvents is how many events of the tree are kept for readers: a reload of a hundred workers, or
// the last minutes of a crash loop.
const maxEvents = 2048

// maxEventBytes bounds what they take with the stacks of panics.
const maxEventBytes = 4 << 20

// FromNow is the cursor of the newest event: a reader gets what happens from now on.
const FromNow uint64 = math.MaxUint64

// An EventReader reads the events of a tree. It holds nothing up and needs no end. One goroutine at
// a time may use it.
type EventReader struct {
	log    *history.Log[Event]
	cursor uint64
}

// Next returns the next event. It waits until there is one; the end of ctx ends the wait with ctx's
// error. After the last event of a tree that has ended it returns [ErrStopping].
func (r *EventReader) Next(ctx context.Context) (Event, error) {
	e, err := r.log.Next(ctx, r.cursor)
	if errors.Is(err, history.ErrClosed) {
		return Event{}, ErrStopping
	}
	return r.read(e), err
}

// All returns the events until the end of ctx, or the last event of the tree.
func (r *EventReader) All(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			if ev, err := r.Next(ctx); err != nil || !yield(ev) {
				return
			}
		}
	}
}

// Kept returns the events that there are already, at most n, and does not wait.
func (r *EventReader) Kept(n int) (evs []Event) {
	for _, e := range r.log.Kept(r.cursor, n) {
		evs = append(evs, r.read(e))
	}
	return evs
}

func (r *EventReader) read(e history.Entry[Event]) Event {
	if e.Cursor == 0 {
		return Event{} // beside an error
	}
	r.cursor = e.Cursor
	e.Value.Cursor, e.Value.Lost = e.Cursor, e.Lost
	return e.Value
}

// newEventLog returns the log of a tree's events.
func newEventLog() *history.Log[Event] {
	return history.New(maxEvents, maxEventBytes, func(e Event) int { return 512 + len(e.Reason.Stack) })
}

// keepEvents returns a function that keeps the events of the tree's supervisors.
func keepEvents(log *history.Log[Event]) func(supervisor.Event) {
	return func(ev supervisor.Event) { log.Put(eventOf(ev)) }
}

// eventOf converts an event of a supervisor.
func eventOf(ev supervisor.Event) Event {
	out, noted := ev.Info.(Event)
	if !noted {
		out = Event{
			Kind: EventKind(ev.Kind), Path: pathInTree(ev.Path), Reason: ev.Reason, Cause: pathInTree(ev.Cause),
			Attempt: ev.Attempt, Left: ev.Left, Max: ev.Max, Delay: ev.Delay, Took: ev.Took, Fault: ev.IsError(),
		}
		if i, ok := ev.Info.(info); ok {
			out.Identity = i.Identity
		} else {
			out.Incarnation = int(ev.Incarnation)
		}
	}
	if out.Cause == out.Path {
		out.Cause = "" // its own failure
	}
	out.Time = ev.Time
	if v := out.Reason.Value; v != nil { // it may be large, and the event is kept
		if _, is := v.(error); !is {
			out.Reason.Value = supervisor.Cut(fmt.Sprint(v))
		}
	}
	return out
}

// pathInTree returns a supervisor's path as the runtime has it: without the root's name. The root is
// "" here; a span or a metric, which have to say something, call it master.
func pathInTree(path string) string {
	return strings.TrimPrefix(strings.TrimPrefix(path, childproto.MasterName), "/")
}
