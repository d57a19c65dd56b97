package actors

import (
	"errors"
	"fmt"
	"math"

	"github.com/asynkron/protoactor-go/actor"
)

// Values of [Spec].Bound.
const (
	// DefaultBound is how many user messages may wait in the mailbox of an actor whose Spec has no
	// Bound before a message from another process finds it full.
	DefaultBound = 1024

	// Unbounded is no bound, for messages from other processes too.
	Unbounded = math.MaxInt
)

// Spec describes an actor. It is plain data but for New.
type Spec struct {
	// Name is the actor's id in its process; see [ErrName]. Empty: a generated one.
	Name string
	// New returns the actor. It is called on the actor's goroutine, before Started, once for each
	// Spawn.
	New func() actor.Actor

	// Bound is how many user messages may wait in the mailbox. Zero means [DefaultBound] for those
	// from other processes and no bound for those of this one; see [Unbounded].
	//
	// Those from other processes are bounded by their bytes too: the mailbox counts as full for one
	// of more than 16 KiB that would bring such ones to more than 16 MiB together, or to more than
	// 16 KiB times Bound if that is more. One that is longer than that finds room when it is the
	// only one.
	Bound int
	// Overflow is what happens at the bound.
	Overflow Overflow
}

func (spec Spec) validate() error {
	var errs []error
	if spec.Name != "" {
		if err := checkName(spec.Name); err != nil {
			errs = append(errs, fmt.Errorf("Name %q: %w", spec.Name, err))
		}
	}
	if spec.New == nil {
		errs = append(errs, errors.New("New is nil"))
	}
	if spec.Bound < 0 {
		errs = append(errs, fmt.Errorf("Bound %d: negative", spec.Bound))
	}
	if spec.Overflow > Fail {
		errs = append(errs, fmt.Errorf("Overflow %d: unknown", spec.Overflow))
	}
	return errors.Join(errs...)
}

// Prompt is an actor that never waits in Receive: not for another actor or process, nor for a lock
// that is held for long; it sends under a context that has ended. It saves two switches of
// goroutines for each message, as it can run on the goroutine that sends to it, by [System.Send] or
// an ask, or that reads what another process sends. As any actor it handles one message after the
// other.
//
// Its senders must not hold a lock that Receive takes. If it does wait, so do they, and all that
// another process sends to this one. If it calls runtime.Goexit, its sender's goroutine ends, or
// the channel to the process that has sent. What it sends to another Prompt actor may run within
// its own Receive.
type Prompt interface {
	actor.Actor
	// Prompt is never called.
	Prompt()
}
