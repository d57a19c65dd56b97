package actors

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/codec"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// sink is a Conn that keeps what is sent, or has no room for it.
type sink struct {
	err error

	mu     sync.Mutex
	frames []fdipc.Frame
}

func (c *sink) list() []fdipc.Frame {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.frames)
}

func (c *sink) TrySend(f *fdipc.Frame) error {
	if c.err != nil {
		return c.err
	}
	g := *f
	g.Payload = bytes.Clone(f.Payload)
	c.mu.Lock()
	c.frames = append(c.frames, g)
	c.mu.Unlock()
	return nil
}

func (c *sink) Send(ctx context.Context, f *fdipc.Frame) error {
	if errors.Is(c.err, fdipc.ErrFull) {
		<-ctx.Done()
		return ctx.Err()
	}
	return c.TrySend(f)
}

func quietSystem(t testing.TB, cfg Config) *System {
	t.Helper()
	cfg.Logger = slog.New(slog.DiscardHandler)
	s, err := NewSystem(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	return s
}

func TestErrorsCross(t *testing.T) {
	pid := actor.NewPID("1", "a")
	for _, c := range errorCodes {
		r := &wire.Reader{B: appendError(nil, errors.Join(errors.New("wrapped"), c.err))}
		if err := readError(r, pid); !errors.Is(err, c.err) || r.Bad {
			t.Errorf("%v became %v", c.err, err)
		}
	}
	rows := []supervisor.Reason{
		normal, shutdown, killed,
		{Kind: supervisor.ShutdownDetail, Detail: "moved"},
		{Kind: supervisor.Error, Cause: errors.New("cause")},
		{Kind: supervisor.GaveUp, Detail: "1 in 5 s", Cause: errors.New("last straw")},
		{Kind: supervisor.Exited, Code: 3},
		{Kind: supervisor.Signaled, Signal: 11, Core: true},
		{Kind: supervisor.Panic, Value: "boom", Stack: "goroutine 1"},
	}
	for _, want := range rows {
		r := &wire.Reader{B: appendError(nil, &DownError{PID: pid, Reason: want})}
		err := readError(r, pid)
		var down *DownError
		if !errors.As(err, &down) || r.Bad || len(r.B) != 0 {
			t.Fatalf("%v became %v", want, err)
		}
		got := down.Reason
		if got.String() != want.String() || got.Kind != want.Kind || got.Stack != want.Stack || got.Code != want.Code || got.Core != want.Core {
			t.Errorf("%#v became %#v", want, got)
		}
	}
}

func TestLateFramesAreRefused(t *testing.T) {
	s := quietSystem(t, Config{Address: "0"})
	got := make(chan any, 10)
	if _, err := s.Spawn(t.Context(), "a", func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if v, ok := ctx.Message().(string); ok {
				got <- v
			}
		})
	}); err != nil {
		t.Fatal(err)
	}
	frame := func(incarnation uint64, text string) *fdipc.Frame {
		b, err := new(codec.MessageWriter).Append(wire.AppendPID(nil, actor.NewPID("0", "a")), text)
		if err != nil {
			t.Fatal(err)
		}
		return &fdipc.Frame{Kind: wire.KindUser, Lane: fdipc.Data, Target: incarnation, Payload: b}
	}
	c1, c2 := &sink{}, &sink{}
	s.HandleFrame("1", frame(1, "before attach"))
	if err := s.Attach("1", 1, c1); err != nil {
		t.Fatal(err)
	}
	if err := s.Attach("1", 1, c1); err != nil {
		t.Fatalf("the same again: %v", err)
	}
	s.HandleFrame("1", frame(1, "one"))
	m := s.Monitor(ProcessPID("1"))
	if err := s.Attach("1", 2, c2); err != nil { // a later one replaces it
		t.Fatal(err)
	}
	if d := <-m.C; !errors.Is(d.Reason.Err(), ErrStale) {
		t.Fatalf("Down %v", d.Reason)
	}
	if err := s.Attach("1", 1, c1); !errors.Is(err, ErrStale) {
		t.Fatalf("an earlier incarnation: %v", err)
	}
	s.HandleFrame("1", frame(1, "late"))
	s.HandleFrame("1", frame(2, "two"))
	s.Detach("1", killed)
	s.HandleFrame("1", frame(2, "late"))
	s.Detach("1", killed)
	for _, want := range []string{"one", "two"} {
		if v := <-got; v != want {
			t.Fatalf("got %v, want %v", v, want)
		}
	}
	if n := s.Stats().Refused; n != 3 {
		t.Fatalf("%d refused, want 3", n)
	}
	for _, address := range []string{"", "0", "a@b"} {
		if err := s.Attach(address, 1, c1); !errors.Is(err, ErrName) {
			t.Errorf("attach %q: %v", address, err)
		}
	}
	if s.HandleFrame("1", &fdipc.Frame{Kind: 0x2f}) || s.HandleFrame("1", &fdipc.Frame{Kind: 0x40}) {
		t.Error("took a frame of another package")
	}
}

func TestSendWaitsForRoomUnderItsBound(t *testing.T) {
	s := quietSystem(t, Config{Address: "0", SendWait: 1}) // 1 ns
	full := &sink{err: fdipc.ErrFull}
	if err := s.Attach("1", 0, full); err != nil {
		t.Fatal(err)
	}
	pid := actor.NewPID("1", "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Send(ctx, pid, "x"); !errors.Is(err, context.Canceled) {
		t.Fatalf("Send: %v", err)
	}
	s.Actor().Root.Send(pid, "x") // an actor's Send has no context
	if err := s.TrySend(ctx, pid, "x"); !errors.Is(err, ErrBusy) {
		t.Fatalf("TrySend: %v", err)
	}
	total, latest := s.DeadLetters()
	if total != 2 || !errors.Is(latest[1].Err, ErrBusy) {
		t.Fatalf("dead letters %v", latest)
	}
	// A monitor is not lost: it waits, and what follows it waits behind it.
	m := s.Monitor(pid)
	if err := s.Send(ctx, pid, "x"); !errors.Is(err, context.Canceled) {
		t.Fatalf("Send: %v", err)
	}
	s.Detach("1", killed)
	if d := <-m.C; d.Reason.Kind != supervisor.Killed {
		t.Fatalf("Down %v", d.Reason)
	}
}

func TestLostChannelWaitsForTheExitReason(t *testing.T) {
	s := quietSystem(t, Config{Address: "0"})
	lost := &sink{err: fdipc.ErrPeerLost}
	if err := s.Attach("1", 0, lost); err != nil {
		t.Fatal(err)
	}
	pid := actor.NewPID("1", "a")
	if err := s.Send(t.Context(), pid, "x"); !errors.Is(err, ErrDown) {
		t.Fatalf("Send: %v", err)
	}
	end := make(chan error, 1)
	go func() {
		_, err := s.Ask(t.Context(), pid, "x")
		end <- err
	}()
	await(t, "the Ask", func() bool { return s.Stats().Asks != 0 })
	s.Detach("1", supervisor.Reason{Kind: supervisor.Signaled, Signal: 9})
	var down *DownError
	if err := <-end; !errors.As(err, &down) || down.Reason.Signal != 9 {
		t.Fatalf("Ask: %v", err)
	}
}

// seeds are frames as two systems write them.
func seeds(t testing.TB) []fdipc.Frame {
	s := quietSystem(t, Config{Address: "1"})
	c := &sink{}
	_ = s.Attach("0", 0, c)
	s.Uplink("0")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, pid := range []*actor.PID{actor.NewPID("0", "a"), s.Lookup("a"), s.Lookup("p/b"), actor.NewPID("2", "x"), ProcessPID("0"), ProcessPID("2"), actor.NewPID("0", "guardian$1"), actor.NewPID("0", askID)} {
		_ = s.Send(ctx, pid, "text")
		_ = s.Send(ctx, pid, wrapperspb.Int64(1))
		_, _ = s.Ask(ctx, pid, []byte("x"))
		s.Monitor(pid).Cancel()
		_ = s.Stop(ctx, pid)
		_ = s.Poison(ctx, pid)
		s.router.postStop(pid)
		_ = s.router.sendRemote(ctx, pid, outgoing{message: &actor.MessageEnvelope{Header: map[string]string{"k": "v"}, Message: &actor.Watch{Watcher: pid}, Sender: pid}})
		_ = s.Register(ctx, "n", pid)
	}
	_, _ = s.Whereis(ctx, "n")
	s.peers.sendDown("0", 1, shutdown, endActor)
	s.router.failAsk(&actor.PID{Address: "0", Id: askID, RequestId: 1}, ErrType)
	s.router.failAsk(&actor.PID{Address: "0", Id: askID, RequestId: 1}, &DownError{Reason: killed})
	s.peers.find("0").postProcessEnded("2", killed)
	master := quietSystem(t, Config{Address: "0"})
	to := &sink{}
	_ = master.Attach("1", 0, to)
	_ = master.Attach("2", 0, &sink{})
	for _, f := range c.list() { // what a master answers
		master.HandleFrame("1", &f)
	}
	master.peers.makeLane(master.peers.find("1"), "2", 0)
	master.peers.makeLane(master.peers.find("1"), "9", 0)
	master.Detach("2", killed)
	return append(c.list(), to.list()...)
}

// FuzzHandleFrame feeds a master and a child with what a hostile peer may send:
// no panic, no wait, and the system goes on answering.
func FuzzHandleFrame(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(uint8(s.Kind), s.Flags, s.Payload)
	}
	master, child := quietSystem(f, Config{Address: "0"}), quietSystem(f, Config{Address: "0"})
	for _, s := range []*System{master, child} {
		if _, err := s.Spawn(f.Context(), "a", func() actor.Actor {
			return actor.ReceiveFunc(func(ctx actor.Context) {
				if _, ok := ctx.Message().(string); ok && ctx.Sender() != nil {
					ctx.Respond("answer")
				}
			})
		}); err != nil {
			f.Fatal(err)
		}
	}
	child.Uplink("1")
	f.Fuzz(func(t *testing.T, kind, flags uint8, payload []byte) {
		for _, s := range []*System{master, child} {
			for _, a := range []string{"1", "2"} {
				if s.Attach(a, 0, &sink{}) != nil {
					t.Fatal("not attached")
				}
			}
			before := bytes.Clone(payload)
			s.HandleFrame("1", &fdipc.Frame{Kind: fdipc.Kind(kind), Flags: flags, Payload: payload})
			if !bytes.Equal(before, payload) {
				t.Fatal("the payload was written to")
			}
			for _, a := range []string{"1", "2"} {
				s.Detach(a, killed)
			}
			s.inbound.mu.Lock() // an actor that a frame has stopped may just end
			asks, monitors := len(s.inbound.asks), len(s.inbound.monitors)
			s.inbound.mu.Unlock()
			if asks != 0 || monitors != 0 {
				t.Fatalf("left of a dead process: %d asks, %d monitors", asks, monitors)
			}
		}
	})
}
