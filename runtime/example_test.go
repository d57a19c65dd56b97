package coppice_test

import (
	"context"
	"fmt"
	"strconv"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
)

// thumbnails is the work of a pool that only some customers need.
func thumbnails(ctx context.Context, w *coppice.Worker) error {
	if err := w.Ready(); err != nil {
		return err
	}
	<-ctx.Done() // make thumbnails
	return nil
}

// Every process of the program knows the function by its name, whatever its tree.
func init() { coppice.RegisterFunction("thumbnails", thumbnails) }

// A pool is added while the tree runs, used, and taken away.
func ExampleRuntime_StartChild() {
	ctx := context.Background()
	rt, err := coppice.Start(ctx, coppice.Config{
		ListenerIsolation: coppice.GoroutineIsolation,
		Children: []coppice.ChildSpec{
			coppice.Func{Name: "clock", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }},
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = rt.Shutdown(ctx) }()

	pool := coppice.Pool{
		Name: "thumbs", Size: 2, Function: "thumbnails",
		Shutdown:  20 * time.Second,
		Isolation: coppice.GoroutineIsolation, // processes, but in an example
	}
	if err := rt.StartChild(ctx, "", pool); err != nil { // "" = below the root
		fmt.Println(err)
		return
	}
	fmt.Println(rt.Scale(ctx, "thumbs", 3))
	fmt.Println(rt.Restart(ctx, "thumbs/0"))
	fmt.Println(rt.TerminateChild(ctx, "thumbs")) // it could be started again
	fmt.Println(rt.DeleteChild(ctx, "thumbs"))
	fmt.Println(rt.RestartChild(ctx, "thumbs"))
	// Output:
	// <nil>
	// <nil>
	// <nil>
	// <nil>
	// coppice: restart child thumbs: no such child
}

// tally counts orders, and goes on counting when the whole program is replaced.
func tally(ctx context.Context, orders <-chan int) error {
	var sum int64
	if version, state, ok := coppice.TakeOver(ctx); ok && version == 1 {
		sum, _ = strconv.ParseInt(string(state), 10, 64)
	}
	for {
		select {
		case n := <-orders:
			sum += int64(n)
		case <-ctx.Done():
			return coppice.HandOver(ctx, 1, strconv.AppendInt(nil, sum, 10))
		}
	}
}

// A Func hands its state over to itself in the program that takes this one's place by an upgrade.
func ExampleHandOver() {
	orders := make(chan int)
	cfg := coppice.Config{Children: []coppice.ChildSpec{
		coppice.Func{Name: "tally", Run: func(ctx context.Context) error { return tally(ctx, orders) }},
	}}
	_ = cfg // coppice.Main(cfg)
}

// A golden file of this text shows in a review what a change does to the tree.
func ExampleDescribe() {
	text, err := coppice.Describe(coppice.Config{Children: []coppice.ChildSpec{
		coppice.Pool{
			Name: "thumbs", Size: 2, Function: "thumbnails", Shutdown: 20 * time.Second,
			Environment: coppice.Environment{Env: []string{"TOKEN=a secret"}},
		},
	}})
	fmt.Print(text, err)
	// Output:
	// Config.Shutdown 30s
	// Config.OrphanDrain 1s
	// Config.MaxLine 65536
	// Config.Logger *slog.Logger
	// thumbs Pool
	// thumbs.Size 2
	// thumbs.Function thumbnails
	// thumbs.Environment.Env.TOKEN set
	// thumbs.Shutdown 20s
	// default Pool.Intensity.Max 10
	// default Pool.Intensity.Period 10s
	// default Pool.Backoff.Initial 50ms
	// default Pool.Backoff.Max 1s
	// default Pool.Backoff.ResetAfter 1s
	// default Pool.Backoff.AtOnce true
	// default Pool.Liveness.Every 1s
	// default Pool.Liveness.Timeout 10s
	// default Pool.Liveness.Abort 5s
	// default Pool.StartTimeout 30s
	// default Pool.Shutdown 10s
	// default Pool.Rollout.Surge 1
	// default Pool.Recycle.Every 1s
	// default Pool.Recycle.Jitter 0.2
	// default Pool.Recycle.Max 1
	// default Supervisor.Intensity.Max 1
	// default Supervisor.Intensity.Period 5s
	// <nil>
}
