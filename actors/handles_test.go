package actors_test

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
)

// connMessage carries a connection.
type connMessage struct {
	Name string
	Conn net.Conn `cbor:"-"`
}

func (m *connMessage) TakeHandles() []any {
	if m.Conn == nil {
		return nil
	}
	c := m.Conn
	m.Conn = nil
	return []any{c}
}

func (m *connMessage) SetHandles(hs []*fdipc.Handle) (err error) {
	if len(hs) == 1 {
		m.Conn, err = hs[0].Conn()
	}
	return err
}

func init() { actors.RegisterType[*connMessage]("test.conn") }

// tcpPair returns both ends of a connection.
func tcpPair(t *testing.T) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close(); server.Close() })
	return client, server
}

// greet writes to the connection it is sent, and closes it.
var greet = receive(func(ctx actor.Context) {
	m := ctx.Message().(*connMessage)
	_, _ = io.WriteString(m.Conn, "hello "+m.Name)
	m.Conn.Close()
})

func TestHandlesMoveWithAMessage(t *testing.T) {
	tree := newTree(t, 2)
	for name, row := range map[string]struct{ from, to *actors.System }{
		"sibling to sibling": {tree.Child(0), tree.Child(1)},
		"local":              {tree.Master, tree.Master},
		"master to child":    {tree.Master, tree.Child(0)},
		"child to master":    {tree.Child(0), tree.Master},
	} {
		t.Run(name, func(t *testing.T) {
			pid := spawn(t, row.to, "", greet)
			client, server := tcpPair(t)
			if err := row.from.Send(t.Context(), pid, &connMessage{"there", server}); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(client); err != nil || string(b) != "hello there" {
				t.Fatalf("read %q, %v", b, err)
			}
		})
	}
}

// What an actor never handles has its handles closed, however it came to that.
func TestHandlesOfWhatIsNotHandledAreClosed(t *testing.T) {
	for _, row := range []struct {
		name     string
		overflow actors.Overflow
		run      func(t *testing.T, s *actors.System, pid *actor.PID, msg any)
	}{
		{"queued when the actor is killed", actors.Wait, func(t *testing.T, s *actors.System, pid *actor.PID, msg any) {
			_ = s.Send(t.Context(), pid, msg)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			if err := s.Shutdown(ctx); err == nil { // it is stuck
				t.Error("the actor ended")
			}
		}},
		{"in no room", actors.Fail, func(t *testing.T, s *actors.System, pid *actor.PID, msg any) {
			_ = s.Send(t.Context(), pid, 1)
			wantErr(t, s.Send(t.Context(), pid, msg), actors.ErrFull)
		}},
		{"in no room, asked", actors.Fail, func(t *testing.T, s *actors.System, pid *actor.PID, msg any) {
			_ = s.Send(t.Context(), pid, 1)
			_, err := s.Ask(t.Context(), pid, msg)
			wantErr(t, err, actors.ErrFull)
		}},
		{"in no room in time", actors.Wait, func(t *testing.T, s *actors.System, pid *actor.PID, msg any) {
			_ = s.Send(t.Context(), pid, 1)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			wantErr(t, s.Send(ctx, pid, msg), context.Canceled)
		}},
		{"waiting for room when the system shuts down", actors.Wait, func(t *testing.T, s *actors.System, pid *actor.PID, msg any) {
			_ = s.Send(t.Context(), pid, 1)
			sent := make(chan error, 1)
			go func() { sent <- s.Send(context.Background(), pid, msg) }()
			settled(t, "the sender waits", func() bool { return actors.Waiting(s, pid) })
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = s.Shutdown(ctx)
			wantErr(t, next(t, sent), actors.ErrDown)
		}},
		{"the newest", actors.DropNewest, func(t *testing.T, s *actors.System, pid *actor.PID, msg any) {
			_ = s.Send(t.Context(), pid, 1)
			_ = s.Send(t.Context(), pid, msg)
		}},
		{"the oldest", actors.DropOldest, func(t *testing.T, s *actors.System, pid *actor.PID, msg any) {
			_ = s.Send(t.Context(), pid, msg)
			_ = s.Send(t.Context(), pid, 1)
		}},
		{"told after the end of the system", actors.Wait, func(t *testing.T, s *actors.System, pid *actor.PID, msg any) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = s.Shutdown(ctx)
			wantErr(t, s.Send(t.Context(), pid, msg), actors.ErrClosed)
		}},
		{"asked after the end of the system", actors.Wait, func(t *testing.T, s *actors.System, pid *actor.PID, msg any) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = s.Shutdown(ctx)
			_, err := s.Ask(t.Context(), pid, msg)
			wantErr(t, err, actors.ErrClosed)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := local(t)
			busy, release := make(chan struct{}), make(chan struct{})
			defer close(release)
			pid, err := s.SpawnSpec(t.Context(), actors.Spec{Name: "stuck", Bound: 1, Overflow: row.overflow, New: receive(func(ctx actor.Context) {
				if ctx.Message() == "stick" {
					close(busy)
					<-release
				}
			})})
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(t.Context(), pid, "stick"); err != nil {
				t.Fatal(err)
			}
			next(t, busy)
			client, server := tcpPair(t)
			row.run(t, s, pid, &connMessage{"x", server})
			if err := client.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if b, err := io.ReadAll(client); err != nil || len(b) != 0 {
				t.Fatalf("read %q, %v", b, err)
			}
		})
	}
}

func TestHandlesOfADeadLetterAreClosed(t *testing.T) {
	tree := newTree(t, 1)
	for name, pid := range map[string]*actor.PID{
		"here":            actor.NewPID("0", "nobody"),
		"there":           actor.NewPID(tree.Child(0).Address(), "nobody"),
		"unknown process": actor.NewPID("99", "x"),
		"unknown name":    tree.Master.Lookup("nobody"),
	} {
		t.Run(name, func(t *testing.T) {
			client, server := tcpPair(t)
			_ = tree.Master.Send(t.Context(), pid, &connMessage{"x", server})
			if b, err := io.ReadAll(client); err != nil || len(b) != 0 {
				t.Fatalf("read %q, %v", b, err)
			}
		})
	}
}

// careless takes what it is given to be what it wants.
type careless struct{ conn net.Conn }

func (m *careless) TakeHandles() []any {
	c := m.conn
	m.conn = nil
	return []any{c}
}

func (m *careless) SetHandles(hs []*fdipc.Handle) (err error) {
	if m.conn, err = hs[0].Conn(); err == nil {
		_ = hs[1].Name()
	}
	return err
}

func init() { actors.RegisterType[*careless]("test.careless") }

// A message that comes with fewer handles than its type wants is malformed, however careless
// the type is: what it took is closed.
func TestHandlesFewerThanWanted(t *testing.T) {
	tree := newTree(t, 1)
	child := tree.Child(0)
	pid := spawn(t, child, "", receive(func(actor.Context) { t.Error("handled") }))
	client, server := tcpPair(t)
	if err := tree.Master.Send(t.Context(), pid, &careless{server}); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(client); err != nil || len(b) != 0 {
		t.Fatalf("read %q, %v", b, err)
	}
	settled(t, "it is counted", func() bool { return child.Stats().Malformed == 1 && child.Stats().DeadLetters == 1 })
}
