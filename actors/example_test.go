package actors_test

import (
	"context"
	"errors"
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
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
		balance, err := s.Ask(ctx, pid, n)
		fmt.Println(balance, err)
	}
	fmt.Println("ended:", (<-end.C).Reason)
	// Output:
	// 100 <nil>
	// 70 <nil>
	// <nil> actors: ask 1/account: 1/account is down: error: overdrawn
	// ended: error: overdrawn
}
