package actors_test

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
)

// strait carries the frames of one system to another, which has room for the handles of some.
type strait struct {
	from   string
	to     *actors.System
	frames chan fdipc.Frame
	lose   int // frames with handles that lose them; of the goroutine of run
}

func (s *strait) TrySend(f *fdipc.Frame) error {
	kept := *f
	kept.Payload = bytes.Clone(f.Payload)
	s.frames <- kept
	return nil
}

func (s *strait) Send(_ context.Context, f *fdipc.Frame) error { return s.TrySend(f) }

// run ends with the channel.
func (s *strait) run() {
	for f := range s.frames {
		if len(f.Handles) == 0 || s.lose == 0 {
			s.to.HandleFrame(s.from, &f)
			continue
		}
		s.lose--
		for _, h := range f.Handles {
			h.Close()
		}
		f.Handles = nil
		if !s.to.HandlesLost(s.from, &f) {
			panic("not of package actors")
		}
	}
}

// A process has no descriptor for its end of a lane, or for a handle of a message. A caller that
// waits gets an error at once, and the next message has another lane.
func TestHandlesLost(t *testing.T) {
	join := func(t *testing.T, lose int) (tree *testTree, b *actors.System) {
		tree = newTree(t, 1)
		b = newSystem(t, actors.Config{Address: "77"})
		down := &strait{from: "0", to: b, frames: make(chan fdipc.Frame, 100), lose: lose}
		up := &strait{from: "77", to: tree.Master, frames: make(chan fdipc.Frame, 100)}
		for _, err := range []error{tree.Master.Attach("77", 0, down), b.Attach("0", 0, up)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		b.Uplink("0")
		go down.run()
		go up.run()
		t.Cleanup(func() {
			tree.Master.Detach("77", killedBy9)
			b.Detach("0", killedBy9)
			close(down.frames)
			close(up.frames)
		})
		return tree, b
	}
	t.Run("the end of a lane", func(t *testing.T) {
		tree, b := join(t, 1)
		a := tree.Child(0)
		spawn(t, a, "echo", echo)
		pid := actor.NewPID(a.Address(), "echo")
		_, err := b.Ask(testContext(t), pid, "x")
		wantErr(t, err, actors.ErrLane)
		wantErr(t, err, fdipc.ErrNoFiles)
		if v := ask(t, b, pid, "again"); v != "again" {
			t.Errorf("%v", v)
		}
	})
	t.Run("a connection in a message", func(t *testing.T) {
		tree, b := join(t, 1)
		pid := spawn(t, b, "greet", greet)
		_, server := tcpPair(t)
		_, err := tree.Master.Ask(testContext(t), actor.NewPID("77", pid.Id), &connMessage{Name: "x", Conn: server})
		if err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the ask: %v", err)
		}
		if n, _ := b.DeadLetters(); n != 1 {
			t.Errorf("%d dead letters", n)
		}
	})
}
