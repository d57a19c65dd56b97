package actors_test

import (
	"io"
	"net"
	"testing"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/actorstest"
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
	tree := actorstest.NewTree(t, 2)
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

func TestHandlesOfADeadLetterAreClosed(t *testing.T) {
	tree := actorstest.NewTree(t, 1)
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
