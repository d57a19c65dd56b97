package actors_test

import (
	"os"
	"strconv"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
)

// TestReplaceOverSockets: the System and its Conn go through an exec together, in the order that
// Suspend tells. The child never stops to tell, to ask and to watch.
func TestReplaceOverSockets(t *testing.T) {
	ctx := testContext(t)
	master := newSystem(t, actors.Config{Address: "0"})
	spawn(t, master, "ledger", newLedger)
	spawn(t, master, "plain", echo)
	x, y, err := fdipc.Socketpair()
	if err != nil {
		t.Fatal(err)
	}
	config := func(s *actors.System) fdipc.Config {
		return fdipc.Config{
			Suspendable: true,
			Ready:       func(c *fdipc.Conn) { _ = s.Attach("1", 1, c) },
			Handler:     func(_ *fdipc.Conn, f *fdipc.Frame) { s.HandleFrame("1", f) },
		}
	}
	conn := newConn(t, x, config(master))
	child := newSystem(t, actors.Config{Address: "1", Incarnation: 1})
	ready := make(chan struct{})
	down := newConn(t, y, fdipc.Config{
		Ready: func(c *fdipc.Conn) {
			_ = child.Attach("0", 0, c)
			child.Uplink("0")
			close(ready)
		},
		Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { child.HandleFrame("0", f) },
	})
	next(t, ready)
	ledgerPID := actor.NewPID("0", "ledger")
	var stop atomic.Bool
	told, asked, ended := make(chan int, 1), new(atomic.Int64), make(chan struct{})
	go func() { // ends with stop
		n := 0
		for !stop.Load() {
			n++
			err := child.Send(ctx, ledgerPID, entry{"1", n})
			if n%50 == 0 && err == nil { // not too far ahead
				_, err = child.Ask(ctx, ledgerPID, 1)
			}
			if err != nil {
				t.Error(err)
				break
			}
		}
		told <- n
	}()
	go func() { // ends with stop
		defer close(ended)
		for m := child.Monitor(child.Lookup("plain")); !stop.Load() && !t.Failed(); asked.Add(1) {
			if v, err := actors.Ask[int](ctx, child, child.Lookup("ledger"), 5); err != nil || v != 5 {
				t.Error(v, err)
			}
			select {
			case d := <-m.C:
				wantErr(t, d.Reason.Cause, actors.ErrReplaced)
				m = child.Monitor(child.Lookup("plain"))
			default:
			}
		}
	}()
	old := []*fdipc.Conn{}
	for range 5 {
		for before := asked.Load(); asked.Load() < before+3 && !t.Failed(); {
			ask(t, child, actor.NewPID("0", "plain"), "x")
		}
		// The old image.
		if _, _, err := conn.Suspend(ctx); err != nil {
			t.Fatal(err)
		}
		state, err := master.Suspend(ctx)
		if err != nil {
			t.Fatal(err)
		}
		connState, fds, err := conn.Suspend(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i, fd := range fds {
			if fds[i], err = unix.Dup(fd); err != nil {
				t.Fatal(err)
			}
		}
		old = append(old, conn)
		// The new one.
		master = restore(t, state)
		if conn, err = fdipc.Restore(connState, fds, config(master)); err != nil {
			t.Fatal(err)
		}
		if err := master.Attach("1", 1, conn); err != nil {
			t.Fatal(err)
		}
		spawn(t, master, "ledger", newLedger)
		spawn(t, master, "plain", echo)
		master.Resume()
		conn.Resume()
	}
	stop.Store(true)
	<-ended
	n := <-told
	if err := child.Send(ctx, ledgerPID, entry{"1", n + 1}); err != nil {
		t.Fatal(err)
	}
	b, _ := ask(t, child, ledgerPID, keep{}).([]byte)
	if want := `[{"1":` + strconv.Itoa(n+1) + `},null]`; string(b) != want {
		t.Errorf("the ledger has %s, want %s", b, want)
	}
	down.Close()
	<-conn.Done()
	for _, c := range old {
		c.Resume() // its sockets have ended
		c.Close()
	}
}

func newConn(t *testing.T, f *os.File, cfg fdipc.Config) *fdipc.Conn {
	t.Helper()
	c, err := fdipc.New(f, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
