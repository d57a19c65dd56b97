package actors

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/supervisor"
)

// An Inspector is an actor that shows its state on request, see [System.Inspect]. Inspect is
// called on the actor's goroutine, between two messages, and the result is printed there.
type Inspector interface {
	Inspect() any
}

// ErrNotInspector is wrapped by the error of Inspect for an actor that does not implement
// [Inspector].
var ErrNotInspector = errors.New("actors: the actor has no Inspect method")

// An Inspection is what an [Inspector] shows.
type Inspection struct {
	Text  string          `json:"state"`           // at most [supervisor.MaxText] bytes
	Value json.RawMessage `json:"value,omitempty"` // nil if the state is no JSON, or longer than 1 MiB
}

const maxInspection = 1 << 20

// A Summarizer is an actor that says how it is, for the tree: see [ActorInfo]. Summary may be
// called by any goroutine from the end of Started on, and does not wait.
type Summarizer interface {
	Summary() Summary
}

// A Summary is what a [Summarizer] says.
type Summary struct {
	Kind string `json:"kind,omitempty"`    // of the actor, for programs that look for such actors
	Text string `json:"summary,omitempty"` // in one line
}

// String is one line.
func (s Summary) String() string { return strings.TrimPrefix(s.Kind+": "+s.Text, ": ") }

// An Operator is an actor that can be told to do something by an operator, see [System.Operate].
// Operate is called on the actor's goroutine, between two messages. do is a verb of the actor's,
// what the thing that it is about.
type Operator interface {
	Operate(do, what string) error
}

// ErrNotOperator is wrapped by the error of Operate for an actor that does not implement
// [Operator].
var ErrNotOperator = errors.New("actors: the actor has no Operate method")

// An operation is what is asked of an actor of this process between two messages. It cannot come
// from another process.
type operation func(user actor.Actor) (any, error)

type operationResult struct {
	value any
	err   error
}

// Inspect returns the state of an actor of this process. id is the actor's name. The request waits
// in the actor's mailbox behind the messages that were there before; ctx bounds the wait.
func (s *System) Inspect(ctx context.Context, id string) (Inspection, error) {
	v, err := s.between(ctx, id, func(user actor.Actor) (any, error) {
		i, ok := user.(Inspector)
		if !ok {
			return nil, ErrNotInspector
		}
		state := i.Inspect()
		shown := Inspection{Text: supervisor.Cut(fmt.Sprintf("%+v", state))}
		if b, err := json.Marshal(state); err == nil && len(b) <= maxInspection {
			shown.Value = b
		}
		return shown, nil
	})
	if err != nil {
		return Inspection{}, fmt.Errorf("actors: inspect %s: %w", id, err)
	}
	return v.(Inspection), nil
}

// Operate has an actor of this process do something, and returns its error. It waits as Inspect
// does.
func (s *System) Operate(ctx context.Context, id, do, what string) error {
	_, err := s.between(ctx, id, func(user actor.Actor) (any, error) {
		if o, ok := user.(Operator); ok {
			return nil, o.Operate(do, what)
		}
		return nil, ErrNotOperator
	})
	if err != nil {
		return fmt.Errorf("actors: %s: %s %s: %w", id, do, what, err)
	}
	return nil
}

// between has an actor do an operation.
func (s *System) between(ctx context.Context, id string, do operation) (any, error) {
	if s.local.find(id) == nil {
		return nil, ErrNoActor // one that protoactor spawned would not know the request
	}
	answer, err := Ask[operationResult](ctx, s, actor.NewPID(s.Address(), id), do)
	return answer.value, cmp.Or(err, answer.err)
}

// operate does an operation. A panic in it is not the actor's end.
func (w *wrapper) operate(ctx actor.Context, do operation) {
	var answer operationResult
	defer func() {
		if v := recover(); v != nil {
			answer = operationResult{err: fmt.Errorf("it panics: %v", v)}
		}
		ctx.Respond(answer)
	}()
	answer.value, answer.err = do(original(w.user))
}

// original returns the user's actor, without what [Instrument] has put around it.
func original(a actor.Actor) actor.Actor {
	if i, ok := a.(interface{ instruments() actor.Actor }); ok {
		return i.instruments()
	}
	return a
}

// A MessageCount is how many messages of a type an actor has begun to handle, and when it did last.
type MessageCount struct {
	Type  string    `json:"type"` // of Go
	Count uint64    `json:"count"`
	Last  time.Time `json:"last"`
}

// maxMessageTypes bounds the types that are told apart.
const maxMessageTypes = 256

// messageWatch counts messages by type.
type messageWatch struct {
	mu     sync.Mutex
	counts map[reflect.Type]*MessageCount
}

func (m *messageWatch) count(msg any) {
	t := reflect.TypeOf(msg)
	m.mu.Lock()
	defer m.mu.Unlock()
	c := m.counts[t]
	if c == nil {
		if len(m.counts) == maxMessageTypes {
			return
		}
		c = &MessageCount{Type: t.String()}
		m.counts[t] = c
	}
	c.Count++
	c.Last = time.Now()
}

// WatchMessages counts the user messages that an actor of this process handles, by type, until ctx
// ends, and returns the counts, the largest first. It costs the actor some 100 ns a message
// meanwhile. An actor is watched by one caller at a time; for the next the error wraps [ErrBusy].
func (s *System) WatchMessages(ctx context.Context, id string) ([]MessageCount, error) {
	inc := s.local.find(id)
	if inc == nil {
		return nil, fmt.Errorf("actors: watch messages of %s: %w", id, ErrNoActor)
	}
	m := &messageWatch{counts: map[reflect.Type]*MessageCount{}}
	if !inc.wrapper.watch.CompareAndSwap(nil, m) {
		return nil, fmt.Errorf("actors: watch messages of %s: %w: it is watched", id, ErrBusy)
	}
	select {
	case <-ctx.Done():
	case <-inc.done:
	}
	inc.wrapper.watch.Store(nil)
	m.mu.Lock()
	defer m.mu.Unlock()
	counts := make([]MessageCount, 0, len(m.counts))
	for _, c := range m.counts {
		counts = append(counts, *c)
	}
	slices.SortFunc(counts, func(a, b MessageCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Type, b.Type))
	})
	return counts, nil
}
