package actors_test

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// system returns an actor system, and what ends it. In a tree it is Worker.System, or
// Runtime.System.
func system(address string) (*actors.System, func()) {
	s, err := actors.NewSystem(actors.Config{Address: address})
	if err != nil {
		panic(err)
	}
	return s, func() { _ = s.Shutdown(context.Background()) }
}

// begin starts an actor.
func begin(s *actors.System, name string, a actor.Actor) *actor.PID {
	pid, err := s.Spawn(context.Background(), name, func() actor.Actor { return a })
	if err != nil {
		panic(err)
	}
	return pid
}

// A name is a PID that follows its holder.
func ExampleSystem_Register() {
	ctx := context.Background()
	s, end := system("0")
	defer end()
	ann, bob := begin(s, "ann", &till{cents: 1}), begin(s, "bob", &till{cents: 2})
	cashier := s.Lookup("cashier") // can be kept and sent, also before there is a holder
	fmt.Println(s.Register(ctx, "cashier", ann))
	fmt.Println(errors.Is(s.Register(ctx, "cashier", bob), actors.ErrNameTaken))
	fmt.Println(actors.Ask[int](ctx, s, cashier, 0))
	fmt.Println(s.Reregister(ctx, "cashier", bob))
	fmt.Println(actors.Ask[int](ctx, s, cashier, 0))
	// Output:
	// <nil>
	// true
	// 1 <nil>
	// <nil>
	// 2 <nil>
}

// watcher gets a message when what it watches has ended.
type watcher struct {
	s    *actors.System
	told chan<- string
}

func (w *watcher) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.PID:
		w.s.MonitorFrom(ctx, m)
		ctx.Respond(true)
	case *actors.Down:
		w.told <- fmt.Sprint(m.PID.Id, ": ", m.Reason)
	}
}

// An actor hears of the end of another one, with the reason, after all that the other has sent.
func ExampleSystem_MonitorFrom() {
	ctx := context.Background()
	s, end := system("0")
	defer end()
	told := make(chan string)
	w, a := begin(s, "watcher", &watcher{s, told}), begin(s, "account", &account{})
	if _, err := s.Ask(ctx, w, a); err != nil {
		fmt.Println(err)
		return
	}
	_ = s.Send(ctx, a, -1)
	fmt.Println(<-told)
	// Output: account: error: overdrawn
}

// A mailbox with a bound says what happens at it.
func ExampleSpec() {
	ctx := context.Background()
	s, end := system("0")
	defer end()
	begun, hold := make(chan struct{}), make(chan struct{})
	pid, err := s.SpawnSpec(ctx, actors.Spec{Name: "slow", Bound: 1, Overflow: actors.Fail, New: func() actor.Actor {
		return actor.ReceiveFunc(func(ctx actor.Context) {
			if _, ok := ctx.Message().(int); ok {
				begun <- struct{}{}
				<-hold
			}
		})
	}})
	if err != nil {
		panic(err)
	}
	fmt.Println(s.Send(ctx, pid, 1))
	<-begun // it is being handled
	fmt.Println(s.Send(ctx, pid, 2))
	fmt.Println(errors.Is(s.Send(ctx, pid, 3), actors.ErrFull))
	close(hold)
	<-begun
	// Output:
	// <nil>
	// <nil>
	// true
}

// purchase is a message that crosses processes: both know its type by this name.
type purchase struct{ Item string }

func init() { actors.RegisterType[purchase]("example.purchase") }

// Two processes are joined by a channel; package coppice does that in a tree. Sends, asks and
// monitors are the same as within one.
func ExampleSystem_Attach() {
	ctx := context.Background()
	master, endMaster := system("0")
	defer endMaster()
	worker, endWorker := system("1")
	defer endWorker()
	var up sync.WaitGroup
	join := func(s *actors.System, peer string, ready func()) fdipc.Config {
		return fdipc.Config{
			Ready: func(c *fdipc.Conn) {
				if err := s.Attach(peer, 0, c); err != nil {
					panic(err)
				}
				ready()
				up.Done()
			},
			Handler: func(_ *fdipc.Conn, f *fdipc.Frame) { s.HandleFrame(peer, f) },
			Closed:  func(*fdipc.Conn, error) { s.Detach(peer, supervisor.Reason{Kind: supervisor.Killed}) },
		}
	}
	up.Add(2)
	down, _ := fdipc.Pipe(join(master, "1", func() {}), join(worker, "0", func() { worker.Uplink("0") }))
	defer down.Close()
	up.Wait()
	begin(master, "shop", actor.ReceiveFunc(func(ctx actor.Context) {
		if o, ok := ctx.Message().(purchase); ok {
			ctx.Respond("sold: " + o.Item)
		}
	}))
	fmt.Println(actors.Ask[string](ctx, worker, worker.Lookup("shop"), purchase{"tea"}))
	// Output: sold: tea <nil>
}
