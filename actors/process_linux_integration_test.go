//go:build linux

package actors_test

import (
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/actorstest"
	"github.com/coppice-go/coppice/supervisor"
)

// onlyMaster is a type that a peer does not register: a later version's.
type onlyMaster struct{ N int }

func TestMain(m *testing.M) {
	if os.Getenv("COPPICE_TEST_CHILD") == "" {
		os.Setenv("COPPICE_TEST_CHILD", "1")
		actors.RegisterType[onlyMaster]("test.only_master")
	}
	actorstest.Main(m, map[string]actorstest.Role{"worker": worker})
}

// worker has an echo, an actor that greets connections, and one that asks back.
func worker(s *actors.System) error {
	ctx := context.Background()
	_, e1 := s.Spawn(ctx, "echo", receive(func(ctx actor.Context) {
		switch ctx.Message() {
		case "panic":
			panic("as told")
		case "hold":
			ctx.Send(actor.NewPID("0", "taken"), "taken")
		default:
			ctx.Respond(ctx.Message())
		}
	}))
	_, e2 := s.Spawn(ctx, "greet", greet)
	_, e3 := s.Spawn(ctx, "asks", receive(func(ctx actor.Context) {
		v, err := s.Ask(context.Background(), s.Lookup("master/echo"), ctx.Message())
		if err != nil {
			panic(err)
		}
		ctx.Respond(v)
	}))
	_, e4 := s.Spawn(ctx, "count", counter)
	return errors.Join(e1, e2, e3, e4)
}

// An ask from master to worker and back from worker to master; a kill with an
// ask in flight ends it with the exit reason, and all that waits.
func TestTwoProcesses(t *testing.T) {
	master := local(t)
	spawn(t, master, "echo", echo)
	if err := master.Register(t.Context(), "master", master.Process()); err != nil {
		t.Fatal(err)
	}
	taken := actorstest.NewProbe(t, master, "taken")
	for id := 1; id <= 3; id++ {
		peer := actorstest.StartPeer(t, master, id, "worker")
		if err := master.Register(t.Context(), "w", actors.ProcessPID(peer.Address)); err != nil {
			t.Fatal(err)
		}
		pid := master.Lookup("w/echo")
		if v := ask(t, master, pid, &point{X: id}).(*point); v.X != id {
			t.Fatalf("got %v", v)
		}
		if v := ask(t, master, master.Lookup("w/asks"), "back"); v != "back" {
			t.Fatalf("got %v", v)
		}
		_, err := master.Ask(actorstest.Context(t), pid, onlyMaster{1})
		wantErr(t, err, actors.ErrType) // said by the other end
		client, server := tcpPair(t)
		if err := master.Send(t.Context(), master.Lookup("w/greet"), &connMessage{strconv.Itoa(id), server}); err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(client); err != nil || string(b) != "hello "+strconv.Itoa(id) {
			t.Fatalf("read %q, %v", b, err)
		}

		end := make(chan error, 1)
		go func() { // ends with the peer
			_, err := master.Ask(actorstest.Context(t), pid, "hold")
			end <- err
		}()
		taken.Next()
		mon, proc := master.Monitor(pid), master.Monitor(master.Lookup("w"))
		taken.Do(func(ctx actor.Context) { ctx.Watch(pid) })
		peer.Kill()
		var down *actors.DownError
		if err := actorstest.Next(t, end); !errors.As(err, &down) || down.Reason.Kind != supervisor.Signaled || down.Reason.Signal != 9 {
			t.Fatalf("ask: %v", err)
		}
		for _, m := range []*actors.Monitor{mon, proc} {
			if d := actorstest.Next(t, m.C); d.Reason.Signal != 9 {
				t.Fatalf("Down %v", d.Reason)
			}
		}
		if m := taken.Terminated(); m.Why != actor.TerminatedReason_AddressTerminated {
			t.Fatalf("Why %v", m.Why)
		}
	}
	if st := master.Stats(); st.Asks != 0 || st.Monitors != 1 || st.Refused != 0 || st.Malformed != 0 { // the name of the master is monitored
		t.Fatalf("left: %+v", st)
	}
}
