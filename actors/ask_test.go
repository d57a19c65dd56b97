package actors_test

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
)

// TestAskTyped: an answer of the type asked for is returned as it is, one of another type is an
// error that names both, in the process and across processes.
func TestAskTyped(t *testing.T) {
	tree := newTree(t, 2)
	ctx := testContext(t)
	for name, pid := range map[string]*actor.PID{
		"in the process":   spawn(t, tree.Child(0), "echo", echo),
		"in another child": spawn(t, tree.Child(1), "echo", echo),
	} {
		t.Run(name, func(t *testing.T) {
			s := tree.Child(0)
			if n, err := actors.Ask[int](ctx, s, pid, 7); n != 7 || err != nil {
				t.Errorf("answer %v, error %v", n, err)
			}
			if v, err := actors.Ask[any](ctx, s, pid, "x"); v != "x" || err != nil {
				t.Errorf("answer %v, error %v", v, err)
			}
			n, err := actors.Ask[int](ctx, s, pid, "x")
			wantErr(t, err, actors.ErrAnswerType)
			if n != 0 || !strings.Contains(err.Error(), "string, want int") {
				t.Errorf("answer %v, error %q", n, err)
			}
			_, err = actors.Ask[int](ctx, s, actor.NewPID(pid.Address, "absent"), 7)
			wantErr(t, err, actors.ErrNoActor)
		})
	}
}

// TestAskTypedClosesHandles: the handles of an answer of another type are closed.
func TestAskTypedClosesHandles(t *testing.T) {
	s := local(t)
	client, server := tcpPair(t)
	pid := spawn(t, s, "conn", receive(func(ctx actor.Context) { ctx.Respond(&connMessage{"x", server}) }))
	_, err := actors.Ask[string](testContext(t), s, pid, "x")
	wantErr(t, err, actors.ErrAnswerType)
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read: %v, want EOF", err)
	}
}
