package actors_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/supervisor"
)

// prompt is a Prompt actor of a function that gets user messages only.
type prompt func(ctx actor.Context)

func (p prompt) Prompt() {}

func (p prompt) Receive(ctx actor.Context) {
	switch ctx.Message().(type) {
	case *actor.Started, *actor.Stopping, *actor.Stopped:
	default:
		p(ctx)
	}
}

// spawnPrompt spawns a Prompt actor and waits until the goroutine of its start has ended.
func spawnPrompt(t *testing.T, s *actors.System, p prompt) *actor.PID {
	t.Helper()
	pid := spawn(t, s, "", func() actor.Actor { return p })
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); !actors.Idle(s, pid); {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal("the actor does not become idle")
		}
	}
	return pid
}

// TestPromptRunsInItsSender: the message is handled when Send returns, on the same goroutine, which
// the race detector would tell.
func TestPromptRunsInItsSender(t *testing.T) {
	s := local(t)
	handled := 0
	pid := spawnPrompt(t, s, func(actor.Context) { handled++ })
	for i := range 3 {
		if err := s.Send(t.Context(), pid, "x"); err != nil || handled != i+1 {
			t.Fatalf("%v, %d messages are handled, want %d", err, handled, i+1)
		}
	}
}

// TestPromptLetsItsSenderGo: a sender does not handle the messages of all others.
func TestPromptLetsItsSenderGo(t *testing.T) {
	const messages = 100
	s := local(t)
	sent, all := make(chan struct{}), make(chan struct{})
	n := 0
	pid := spawnPrompt(t, s, func(ctx actor.Context) {
		switch n++; n {
		case 1:
			for range messages - 1 {
				_ = s.Send(t.Context(), ctx.Self(), "more")
			}
		case messages / 2:
			<-sent
		case messages:
			close(all)
		}
	})
	if err := s.Send(t.Context(), pid, "first"); err != nil {
		t.Fatal(err)
	}
	close(sent)
	next(t, all)
}

// TestPromptHandlesOneAtATime has many senders, some of which run the actor.
func TestPromptHandlesOneAtATime(t *testing.T) {
	const senders, each = 8, 500
	s := local(t)
	last, total := make([]int, senders), 0
	pid := spawnPrompt(t, s, func(ctx actor.Context) {
		switch m := ctx.Message().(type) {
		case [2]int:
			if total++; last[m[0]] != m[1] {
				t.Errorf("message %d of sender %d comes after %d", m[1], m[0], last[m[0]]-1)
			}
			last[m[0]] = m[1] + 1
		case string:
			ctx.Respond(total)
		}
	})
	var wait sync.WaitGroup
	for i := range senders {
		wait.Go(func() {
			for n := range each {
				if err := s.Send(t.Context(), pid, [2]int{i, n}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wait.Wait()
	if got := ask(t, s, pid, "total"); got != senders*each {
		t.Errorf("%v messages, want %d", got, senders*each)
	}
}

// TestPromptEnds: a panic is the actor's end and not its sender's, and what it has not handled
// becomes dead letters.
func TestPromptEnds(t *testing.T) {
	s := local(t)
	pid := spawnPrompt(t, s, func(ctx actor.Context) {
		_ = s.Send(t.Context(), ctx.Self(), "never handled")
		panic("as told")
	})
	monitor := s.Monitor(pid)
	if err := s.Send(t.Context(), pid, "x"); err != nil {
		t.Fatal(err)
	}
	wantKind(t, next(t, monitor.C).Reason, supervisor.Panic)
	if err := s.Send(t.Context(), pid, "x"); !errors.Is(err, actors.ErrNoActor) && !errors.Is(err, actors.ErrDown) {
		t.Errorf("after the end: %v", err)
	}
	if n := s.Stats().DeadLetters; n != 2 {
		t.Errorf("%d dead letters, want 2", n)
	}
}
