package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/supervisor"
)

// tended is a child that ends when it is told how.
type tended chan error

func (t tended) run(ctx context.Context) error {
	select {
	case err := <-t:
		return err
	case <-ctx.Done():
		return nil
	}
}

// RestForOne: when a child fails, those that were started after it start again with it.
func ExampleStrategy() {
	ctx := context.Background()
	cache := make(tended)
	s, err := supervisor.Start(ctx, supervisor.Spec{
		Name: "app", Strategy: supervisor.RestForOne,
		Children: []supervisor.ChildSpec{
			{ID: "database", Start: supervisor.Func(idle)},
			{ID: "cache", Start: supervisor.Func(cache.run)},
			{ID: "pages", Start: supervisor.Func(idle)},
		},
	}, quiet)
	if err != nil {
		fmt.Println(err)
		return
	}
	events := s.Subscribe(16)
	cache <- errors.New("lost the connection")
	for ev := range events.Events(ctx) {
		fmt.Println(ev)
		if ev.Path == "app/pages" && ev.Kind == supervisor.ChildStarted {
			break
		}
	}
	fmt.Println(s.Shutdown(ctx))
	// Output:
	// app/cache#1 exited: error: lost the connection
	// app/cache#1 restarting: attempt 1, 0 of 1 left, at once
	// app/pages#1 stopping (because of app/cache)
	// app/pages#1 stopped: shutdown
	// app/cache#2 started
	// app/pages#2 started (because of app/cache)
	// <nil>
}

// A child that fails more often than the budget allows is its supervisor's failure.
func ExampleIntensity() {
	ctx := context.Background()
	worker := make(tended)
	s, err := supervisor.Start(ctx, supervisor.Spec{
		Name: "app", Intensity: supervisor.Intensity{Max: 2, Period: time.Minute},
		Children: []supervisor.ChildSpec{{ID: "worker", Start: supervisor.Func(worker.run)}},
	}, quiet)
	if err != nil {
		fmt.Println(err)
		return
	}
	for range 3 {
		worker <- errors.New("no database")
	}
	fmt.Println(s.Wait(ctx))
	fmt.Println(s.Reason().Kind)
	// Output:
	// gave up: more than 2 restarts in 1m0s: app/worker: error: no database
	// gave up
}

// A transient child that ends as it should is not started again; a significant one ends its
// supervisor then.
func ExampleChildSpec() {
	ctx := context.Background()
	batch := make(tended)
	s, err := supervisor.Start(ctx, supervisor.Spec{
		Name: "batch", AutoShutdown: supervisor.AnySignificant,
		Children: []supervisor.ChildSpec{
			{ID: "helper", Start: supervisor.Func(idle)},
			{ID: "work", Start: supervisor.Func(batch.run), Restart: supervisor.Transient, Significant: true, Shutdown: time.Second},
		},
	}, quiet)
	if err != nil {
		fmt.Println(err)
		return
	}
	batch <- nil
	fmt.Println(s.Wait(ctx), s.Reason())
	// Output: <nil> shutdown
}

// A dependency that is away: the pauses between the starts double, up to a bound.
func ExampleBackoff() {
	ctx := context.Background()
	client := make(tended)
	s, err := supervisor.Start(ctx, supervisor.Spec{
		Name: "app", Intensity: supervisor.Intensity{Max: 10, Period: time.Minute},
		Backoff: supervisor.Backoff{
			Initial: time.Millisecond, Max: 4 * time.Millisecond, NoJitter: true,
			ResetAfter: time.Hour, // a life as long counts as a success
		},
		Children: []supervisor.ChildSpec{{ID: "client", Start: supervisor.Func(client.run)}},
	}, quiet)
	if err != nil {
		fmt.Println(err)
		return
	}
	events := s.Subscribe(32)
	go func() { // ends when it has failed four times
		for range 4 {
			client <- errors.New("refused")
		}
	}()
	n := 0
	for ev := range events.Events(ctx) {
		if ev.Kind == supervisor.ChildRestarting {
			fmt.Println(ev.Delay)
			if n++; n == 4 {
				break
			}
		}
	}
	s.Kill()
	<-s.Done()
	// Output:
	// 1ms
	// 2ms
	// 4ms
	// 4ms
}
