package actors_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/coppice-go/coppice/actors"
)

// shown counts the strings that it gets, and shows the count.
type shown struct{ n int }

func (c *shown) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(string); ok {
		c.n++
		ctx.Respond(c.n)
	}
}

func (c *shown) Inspect() any {
	if c.n == 3 {
		panic("three")
	}
	return struct{ Count int }{c.n}
}

func (c *shown) Summary() actors.Summary {
	if c.n == 3 {
		panic("three")
	}
	return actors.Summary{Kind: "counter", Text: "it counts"}
}

func (c *shown) Operate(do, what string) error {
	if do != "set" {
		return errors.New("it can only be set")
	}
	n, err := strconv.Atoi(what)
	c.n = n
	return err
}

func TestInspect(t *testing.T) {
	s, err := actors.NewSystem(actors.Config{Address: "0"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Shutdown(t.Context()) }()
	for id, produce := range map[string]func() actor.Actor{
		"plain":  func() actor.Actor { return new(shown) },
		"traced": actors.Instrument(noop.NewTracerProvider(), func() actor.Actor { return new(shown) }),
	} {
		pid, err := s.Spawn(t.Context(), id, produce)
		if err != nil {
			t.Fatal(err)
		}
		ask := func() {
			t.Helper()
			if _, err := s.Ask(t.Context(), pid, "x"); err != nil {
				t.Fatal(err)
			}
		}
		ask()
		ask()
		if i, err := s.Inspect(t.Context(), id); err != nil || i.Text != "{Count:2}" || string(i.Value) != `{"Count":2}` {
			t.Errorf("%s: %+v, %v", id, i, err)
		}
		summary := func() string {
			return s.Actors()[slices.IndexFunc(s.Actors(), func(i actors.ActorInfo) bool { return i.PID == "0/"+id })].Summary.String()
		}
		if got := summary(); got != "counter: it counts" {
			t.Errorf("%s: %q", id, got)
		}
		ask()
		if i, err := s.Inspect(t.Context(), id); err == nil || !strings.Contains(err.Error(), "it panics: three") {
			t.Errorf("%s, a panic: %+v, %v", id, i, err)
		}
		if got := summary(); got != "Summary panics: three" {
			t.Errorf("%s, a panic: %q", id, got)
		}
		ask() // it lives on
		if err := s.Operate(t.Context(), id, "set", "7"); err != nil {
			t.Error(err)
		}
		if n, err := s.Ask(t.Context(), pid, "x"); n != 8 {
			t.Errorf("%s: after it was set to 7 it says %v, %v", id, n, err)
		}
		if err := s.Operate(t.Context(), id, "lose", "7"); err == nil || !strings.Contains(err.Error(), "it can only be set") {
			t.Errorf("%s: %v", id, err)
		}
	}
	if _, err := s.Spawn(t.Context(), "deaf", func() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Inspect(t.Context(), "deaf"); !errors.Is(err, actors.ErrNotInspector) {
		t.Errorf("without the method: %v", err)
	}
	if err := s.Operate(t.Context(), "deaf", "x", ""); !errors.Is(err, actors.ErrNotOperator) {
		t.Errorf("without the method: %v", err)
	}
	if _, err := s.Inspect(t.Context(), "absent"); !errors.Is(err, actors.ErrNoActor) {
		t.Errorf("without the actor: %v", err)
	}
}

func TestWatchMessages(t *testing.T) {
	s, err := actors.NewSystem(actors.Config{Address: "0"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Shutdown(t.Context()) }()
	pid, err := s.Spawn(t.Context(), "counter", func() actor.Actor { return new(shown) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	type result struct {
		counts []actors.MessageCount
		err    error
	}
	watched := make(chan result, 1)
	go func() {
		counts, err := s.WatchMessages(ctx, "counter")
		for errors.Is(err, actors.ErrBusy) { // by the loop below
			counts, err = s.WatchMessages(ctx, "counter")
		}
		watched <- result{counts, err}
	}()
	for { // until it is watched
		over, end := context.WithTimeout(t.Context(), time.Nanosecond)
		_, err := s.WatchMessages(over, "counter")
		end()
		if errors.Is(err, actors.ErrBusy) {
			break
		}
	}
	for range 5 {
		if _, err := s.Ask(t.Context(), pid, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Send(t.Context(), pid, 7); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Inspect(t.Context(), "counter"); err != nil { // all before it is handled
		t.Fatal(err)
	}
	cancel()
	got := <-watched
	if got.err != nil || len(got.counts) != 2 || got.counts[0].Type != "string" || got.counts[0].Count != 5 || got.counts[1].Type != "int" {
		t.Errorf("%+v", got)
	}
	if _, err := s.WatchMessages(t.Context(), "absent"); !errors.Is(err, actors.ErrNoActor) {
		t.Errorf("without the actor: %v", err)
	}
}
