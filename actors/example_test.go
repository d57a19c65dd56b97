package actors_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
)

// account is an ordinary protoactor actor.
type account struct{ balance int }

func (a *account) Receive(ctx actor.Context) {
	switch n := ctx.Message().(type) {
	case int:
		if a.balance+n < 0 {
			actors.Exit(errors.New("overdrawn"))
		}
		a.balance += n
		ctx.Respond(a.balance)
	}
}

func Example() {
	ctx := context.Background()
	s, err := actors.NewSystem(actors.Config{Address: "1"})
	if err != nil {
		panic(err)
	}
	defer func() { _ = s.Shutdown(ctx) }()

	pid, err := s.Spawn(ctx, "account", func() actor.Actor { return &account{} })
	if err != nil {
		panic(err)
	}
	end := s.Monitor(pid)
	for _, n := range []int{100, -30, -100} {
		balance, err := actors.Ask[int](ctx, s, pid, n)
		fmt.Println(balance, err)
	}
	fmt.Println("ended:", (<-end.C).Reason)
	// Output:
	// 100 <nil>
	// 70 <nil>
	// 0 actors: ask 1/account: 1/account is down: error: overdrawn
	// ended: error: overdrawn
}

// till is an actor that lives on when the program of its process is replaced.
type till struct{ cents int }

func (c *till) Receive(ctx actor.Context) {
	if n, ok := ctx.Message().(int); ok {
		c.cents += n
		ctx.Respond(c.cents)
	}
}

func (c *till) HandOver(actor.Context) (actors.Handover, error) {
	return actors.Handover{Version: 1, State: strconv.AppendInt(nil, int64(c.cents), 10)}, nil
}

func (c *till) TakeOver(_ actor.Context, h actors.Handover) (err error) {
	if h.Version > 1 {
		return fmt.Errorf("till: version %d", h.Version)
	}
	c.cents, err = strconv.Atoi(string(h.State))
	return err
}

func ExampleHandsOver() {
	ctx := context.Background()
	cfg := actors.Config{Address: "0"}
	produce := func() actor.Actor { return &till{} }
	before, err := actors.NewSystem(cfg)
	if err != nil {
		panic(err)
	}
	pid, err := before.Spawn(ctx, "till", produce)
	if err != nil {
		panic(err)
	}
	fmt.Println(actors.Ask[int](ctx, before, pid, 20))
	state, err := before.Suspend(ctx) // and the process goes on as another image
	if err != nil {
		panic(err)
	}
	after, err := actors.Restore(cfg, state)
	if err != nil {
		panic(err)
	}
	if pid, err = after.Spawn(ctx, "till", produce); err != nil {
		panic(err)
	}
	after.Resume()
	fmt.Println(actors.Ask[int](ctx, after, pid, 22))
	// Output:
	// 20 <nil>
	// 42 <nil>
}

// greeter answers a name with a greeting.
type greeter struct{}

func (greeter) Receive(ctx actor.Context) {
	if name, ok := ctx.Message().(string); ok {
		ctx.Respond("hello " + name)
	}
}

func ExampleAsk() {
	ctx := context.Background()
	s, err := actors.NewSystem(actors.Config{Address: "1"})
	if err != nil {
		panic(err)
	}
	defer func() { _ = s.Shutdown(ctx) }()
	pid, err := s.Spawn(ctx, "greeter", func() actor.Actor { return greeter{} })
	if err != nil {
		panic(err)
	}
	greeting, err := actors.Ask[string](ctx, s, pid, "Ann")
	fmt.Println(greeting, err)
	_, err = actors.Ask[int](ctx, s, pid, "Ann")
	fmt.Println(errors.Is(err, actors.ErrAnswerType), err)
	// Output:
	// hello Ann <nil>
	// true actors: ask 1/greeter: answer has another type: string, want int
}

// upload is a message that carries a connection. Between processes its descriptor moves with it.
type upload struct {
	Name string
	Conn net.Conn `cbor:"-"`
}

func (u *upload) TakeHandles() []any {
	conn := u.Conn
	if u.Conn = nil; conn == nil {
		return nil
	}
	return []any{conn}
}

func (u *upload) SetHandles(handles []*fdipc.Handle) (err error) {
	if len(handles) != 1 {
		return errors.New("an upload has one connection")
	}
	u.Conn, err = handles[0].Conn()
	return err
}

func init() { actors.RegisterType[*upload]("example.upload") }

func ExampleHandleCarrier() {
	ctx := context.Background()
	s, err := actors.NewSystem(actors.Config{Address: "1"})
	if err != nil {
		panic(err)
	}
	defer func() { _ = s.Shutdown(ctx) }()
	pid, err := s.Spawn(ctx, "store", func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if u, ok := ctx.Message().(*upload); ok {
				fmt.Fprintln(u.Conn, "stored", u.Name)
				u.Conn.Close()
			}
		})
	})
	if err != nil {
		panic(err)
	}
	client, server := net.Pipe()
	if err := s.Send(ctx, pid, &upload{"a.txt", server}); err != nil { // to any process of the tree
		panic(err)
	}
	answer, err := io.ReadAll(client)
	fmt.Printf("%s%v", answer, err)
	// Output:
	// stored a.txt
	// <nil>
}
