//go:build linux

package actors_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// onlyMaster is a type that a peer does not register: a later version's.
type onlyMaster struct{ N int }

func TestMain(m *testing.M) {
	if os.Getenv("COPPICE_TEST_CHILD") == "" {
		os.Setenv("COPPICE_TEST_CHILD", "1")
		actors.RegisterType[onlyMaster]("test.only_master")
	}
	configurePeer["chaos"] = chaosSystem
	runTests(m, map[string]peerRole{"worker": worker, "chaos": chaos})
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
	_, e5 := s.Spawn(ctx, "sibling", receive(func(ctx actor.Context) {
		order, asker := ctx.Message().(*order), ctx.Sender()
		go func() { // ends with its asks
			if err := s.Send(context.Background(), asker, order.do(s)); err != nil {
				fmt.Fprintln(os.Stderr, "sibling:", err)
			}
		}()
	}))
	return errors.Join(e1, e2, e3, e4, e5)
}

// An ask from master to worker and back from worker to master; a kill with an
// ask in flight ends it with the exit reason, and all that waits.
func TestTwoProcesses(t *testing.T) {
	master := local(t)
	spawn(t, master, "echo", echo)
	if err := master.Register(t.Context(), "master", master.Process()); err != nil {
		t.Fatal(err)
	}
	taken := newProbe(t, master, "taken")
	for id := 1; id <= 3; id++ {
		peer := startPeer(t, master, id, "worker")
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
		_, err := master.Ask(testContext(t), pid, onlyMaster{1})
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
			_, err := master.Ask(testContext(t), pid, "hold")
			end <- err
		}()
		taken.Next()
		mon, proc := master.Monitor(pid), master.Monitor(master.Lookup("w"))
		taken.Do(func(ctx actor.Context) { ctx.Watch(pid) })
		peer.Kill()
		var down *actors.DownError
		if err := next(t, end); !errors.As(err, &down) || down.Reason.Kind != supervisor.Signaled || down.Reason.Signal != 9 {
			t.Fatalf("ask: %v", err)
		}
		for _, m := range []*actors.Monitor{mon, proc} {
			if d := next(t, m.C); d.Reason.Signal != 9 {
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

// order is what a sibling is told to do.
type order struct {
	To      *actor.PID
	Asks    int    // how many asks
	Hold    bool   // one ask that is not answered
	Descend string // greet over a connection that is made to this address
}

type orderDone struct {
	Answered int
	Down     int // signal of the DownError that ended an ask
	Lanes    int
	Err      string
}

func init() {
	actors.RegisterType[*order]("test.order")
	actors.RegisterType[*orderDone]("test.order.done")
}

func (o *order) do(s *actors.System) *orderDone {
	d := &orderDone{}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	fail := func(err error) *orderDone {
		var down *actors.DownError
		if errors.As(err, &down) {
			d.Down = down.Reason.Signal
		}
		d.Err = err.Error()
		return d
	}
	for i := range o.Asks {
		if v, err := s.Ask(ctx, o.To, i); err != nil || v != i {
			return fail(err)
		}
		d.Answered++
	}
	if o.Hold {
		if _, err := s.Ask(ctx, o.To, "hold"); err != nil {
			return fail(err)
		}
	}
	if o.Descend != "" {
		c, err := net.Dial("tcp", o.Descend)
		if err == nil {
			err = s.Send(ctx, o.To, &connMessage{"from a sibling", c})
		}
		if err != nil {
			return fail(err)
		}
	}
	d.Lanes = s.Stats().Lanes
	return d
}

// Two processes talk by a lane of their own: the master passes nothing on. The
// kill of one is known to the other, with its reason, and its descriptors go.
func TestTwoSiblings(t *testing.T) {
	master := local(t)
	taken := newProbe(t, master, "taken")
	a := startPeer(t, master, 1, "worker")
	told := actor.NewPID("1", "sibling")
	ask(t, master, actor.NewPID("1", "echo"), "both ends of the channel are set up")
	base := descriptors(t, a.Pid)
	for id := 2; id <= 4; id++ {
		b := startPeer(t, master, id, "worker")
		echo := actor.NewPID(b.Address, "echo")
		if d := ask(t, master, told, &order{To: echo, Asks: 1}).(*orderDone); d.Answered != 1 {
			t.Fatalf("%+v", d)
		}
		if n := descriptors(t, a.Pid) - base; n > 5 {
			t.Fatalf("a lane costs %d descriptors", n)
		}
		before := a.Received() + b.Received()
		d := ask(t, master, told, &order{To: echo, Asks: 1000}).(*orderDone)
		if d.Answered != 1000 || d.Lanes != 1 || d.Err != "" {
			t.Fatalf("%+v", d)
		}
		if n := a.Received() + b.Received() - before; n > 20 {
			t.Fatalf("the master got %d frames for 1000 asks between siblings", n)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		if d = ask(t, master, told, &order{To: actor.NewPID(b.Address, "greet"), Descend: ln.Addr().String()}).(*orderDone); d.Err != "" {
			t.Fatalf("%+v", d)
		}
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(c); err != nil || string(text) != "hello from a sibling" {
			t.Fatalf("read %q, %v", text, err)
		}
		c.Close()
		ln.Close()

		end := make(chan any, 1)
		go func() { end <- ask(t, master, told, &order{To: echo, Hold: true}) }()
		taken.Next()
		b.Kill()
		if d := next(t, end).(*orderDone); d.Down != 9 {
			t.Fatalf("%+v", d)
		}
		settled(t, "descriptors of a dead sibling's lane", func() bool { return descriptors(t, a.Pid) <= base })
	}
	if st := master.Stats(); st.Lanes != 0 || st.Refused != 0 || st.Malformed != 0 {
		t.Fatalf("left: %+v", st)
	}
}

func descriptors(t *testing.T, pid int) int {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// kinds carries one handle of each kind.
type kinds struct {
	Hops int
	L    net.Listener   `cbor:"-"`
	P    net.PacketConn `cbor:"-"`
	F    *os.File       `cbor:"-"`
	C    net.Conn       `cbor:"-"`
}

func init() { actors.RegisterType[*kinds]("test.kinds") }

func (k *kinds) TakeHandles() []any {
	if k.L == nil {
		return nil
	}
	list := []any{k.L, k.P, k.F, k.C}
	*k = kinds{Hops: k.Hops}
	return list
}

func (k *kinds) SetHandles(hs []*fdipc.Handle) error {
	if len(hs) != 4 {
		return fmt.Errorf("%d handles", len(hs))
	}
	var errs [4]error
	k.L, errs[0] = hs[0].Listener()
	k.P, errs[1] = hs[1].PacketConn()
	k.F, errs[2] = hs[2].File()
	k.C, errs[3] = hs[3].Conn()
	return errors.Join(errs[:]...)
}

// Handles of every kind go to another process in a message and come back in the
// answer, and are what they were.
func TestHandlesOfEveryKind(t *testing.T) {
	master := local(t)
	startPeer(t, master, 1, "worker")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	client, server := tcpPair(t)
	lnAddr, pcAddr := ln.Addr().String(), pc.LocalAddr().String()
	msg := &kinds{L: ln, P: pc, F: w, C: server}
	for hop := range 3 {
		k, ok := ask(t, master, actor.NewPID("1", "echo"), msg).(*kinds)
		if !ok || k.L == nil || k.C == nil {
			t.Fatalf("hop %d: %+v", hop, k)
		}
		msg = k
	}
	defer msg.L.Close()
	defer msg.P.Close()
	if msg.L.Addr().String() != lnAddr || msg.P.LocalAddr().String() != pcAddr {
		t.Fatalf("listener %v, packets %v", msg.L.Addr(), msg.P.LocalAddr())
	}
	c, err := net.Dial("tcp", lnAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if a, err := msg.L.Accept(); err != nil {
		t.Fatal(err)
	} else {
		a.Close()
	}
	if _, err := msg.C.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	msg.C.Close()
	if _, err := msg.F.WriteString("y"); err != nil {
		t.Fatal(err)
	}
	msg.F.Close()
	if b, err := io.ReadAll(client); err != nil || string(b) != "x" {
		t.Fatalf("connection: %q, %v", b, err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "y" { // and no copy is left open
		t.Fatalf("file: %q, %v", b, err)
	}
}
