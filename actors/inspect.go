package actors

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
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

// inspectRequest asks an actor of this process for its state. It cannot come from another process.
type inspectRequest struct{}

type inspected struct {
	text string
	err  error
}

// Inspect returns the state of an actor of this process as text, at most [supervisor.MaxText]
// bytes. id is the actor's name. The request waits in the actor's mailbox behind the messages that
// were there before; ctx bounds the wait.
func (s *System) Inspect(ctx context.Context, id string) (string, error) {
	err := ErrNoActor // one that protoactor spawned would not know the request
	var answer inspected
	if s.local.find(id) != nil {
		answer, err = Ask[inspected](ctx, s, actor.NewPID(s.Address(), id), inspectRequest{})
	}
	if err == nil {
		err = answer.err
	}
	if err != nil {
		return "", fmt.Errorf("actors: inspect %s: %w", id, err)
	}
	return answer.text, nil
}

// inspect answers an inspectRequest. A panic of Inspect is not the actor's end.
func (w *wrapper) inspect(ctx actor.Context) {
	var answer inspected
	defer func() {
		if v := recover(); v != nil {
			answer = inspected{err: fmt.Errorf("it panics: %v", v)}
		}
		ctx.Respond(answer)
	}()
	user := w.user
	if i, ok := user.(interface{ instruments() actor.Actor }); ok {
		user = i.instruments()
	}
	if i, ok := user.(Inspector); ok {
		answer.text = supervisor.Cut(fmt.Sprintf("%+v", i.Inspect()))
	} else {
		answer.err = ErrNotInspector
	}
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
