// Supervision shows a supervision tree of functions, an actor and nested
// supervisors. It makes each of them fail in turn and prints what happens, one
// line an event: which child, why, which attempt, what is left of the restart budget,
// and the delay before the next start.
//
//	go run ./examples/supervision             # the story
//	go run ./examples/supervision -explain    # the tree, and what each part of it is for
//	go run ./examples/supervision -processes  # processes, too: kill one under each strategy (Linux)
//
// The last has one tree in which functions, actors, workers, programs and shell
// scripts stand side by side under each of OTP's strategies. It kills the middle one
// of three and prints whose process numbers have changed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/supervisor"
)

func main() {
	explain := flag.Bool("explain", false, "print the tree and end")
	withProcesses := flag.Bool("processes", false, "kill processes under each strategy, and end")
	waits := flag.Bool("wait", false, "be one of the processes")
	flag.Parse()
	if *waits {
		wait()
		return
	}
	if *withProcesses {
		if err := processes(context.Background(), os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	if err := run(context.Background(), os.Stdout, *explain); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// levers let the story reach into the children: what is sent makes the child
// of that name end so.
type levers map[string]chan error

// fn returns a function child that runs until its lever is pulled. A lever
// pulled with a *bug panics.
func (l levers) fn(name string) supervisor.Starter {
	l[name] = make(chan error)
	return supervisor.Func(func(ctx context.Context) error {
		select {
		case err := <-l[name]:
			if b, ok := errors.AsType[*bug](err); ok {
				panic(b.msg)
			}
			return err
		case <-ctx.Done():
			return nil
		}
	})
}

type bug struct{ msg string }

func (b *bug) Error() string { return b.msg }

// counter is an ordinary protoactor actor with a bug in it.
type counter struct{ n int }

func (c *counter) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case int:
		c.n += 100 / m
	}
}

// tree describes the whole. It is data: -explain prints what is started from it.
func tree(l levers, sys *actors.System) supervisor.Spec {
	return supervisor.Spec{
		Name:      "shop",
		Strategy:  supervisor.RestForOne, // what stands later depends on what stands before
		Intensity: supervisor.Intensity{Max: 5, Period: time.Minute},
		Children: []supervisor.ChildSpec{
			{ID: "stock", Start: l.fn("stock")},
			{ID: "counter", Start: actors.Child(sys, "counter", func() actor.Actor { return &counter{} })},
			{ID: "mail", Restart: supervisor.Transient, Start: supervisor.Spec{
				Intensity: supervisor.Intensity{Max: 2, Period: time.Minute},
				Backoff:   supervisor.Backoff{Initial: 20 * time.Millisecond, NoJitter: true},
				Children: []supervisor.ChildSpec{
					{ID: "queue", Start: l.fn("queue")},
					{ID: "report", Start: l.fn("report"), Restart: supervisor.Temporary},
				},
			}},
		},
	}
}

// run starts the tree and plays the story to out.
func run(ctx context.Context, out io.Writer, explain bool) error {
	quiet := slog.New(slog.DiscardHandler) // the events are printed here
	sys, err := actors.NewSystem(actors.Config{Address: "0", Logger: quiet})
	if err != nil {
		return err
	}
	l := levers{}
	s, err := supervisor.Start(ctx, tree(l, sys), supervisor.Config{Logger: quiet})
	if err != nil {
		return err
	}
	defer s.Kill() // after Shutdown: nothing
	if explain {
		fmt.Fprint(out, s.Snapshot(), explanation)
		return s.Shutdown(ctx)
	}
	events := s.Subscribe(256)
	defer events.Close()
	t := &teller{out: out, events: events}

	t.act("A function returns an error. What was started after it is stopped, last first, and started again.")
	l["stock"] <- errors.New("no connection")
	if err := t.until(ctx, supervisor.ChildStarted, "shop/mail"); err != nil {
		return err
	}
	t.act("An actor panics in a handler.")
	if err := sys.Send(ctx, sys.Lookup("counter"), 0); err != nil {
		return err
	}
	if err := t.until(ctx, supervisor.ChildStarted, "shop/mail"); err != nil {
		return err
	}
	t.act("A temporary child ends: nothing follows.")
	l["report"] <- nil
	if err := t.until(ctx, supervisor.ChildRemoved, "shop/mail/report"); err != nil {
		return err
	}
	t.act("A function panics again and again. Each restart waits longer; then its supervisor gives up, and is itself restarted from above.")
	for range 2 {
		l["queue"] <- &bug{"index out of range"}
		if err := t.until(ctx, supervisor.ChildStarted, "shop/mail/queue"); err != nil {
			return err
		}
	}
	l["queue"] <- &bug{"index out of range"}
	if err := t.until(ctx, supervisor.ChildStarted, "shop/mail"); err != nil {
		return err
	}
	t.act("The end, by order.")
	if err := s.Shutdown(ctx); err != nil {
		return err
	}
	return t.until(ctx, supervisor.SupervisorDown, "shop")
}

// teller prints the events.
type teller struct {
	out    io.Writer
	events *supervisor.Subscription
}

func (t *teller) act(title string) { fmt.Fprintf(t.out, "\n== %s\n", title) }

// until prints events up to the one that is waited for.
func (t *teller) until(ctx context.Context, kind supervisor.EventKind, path string) error {
	for {
		ev, err := t.events.Next(ctx)
		if err != nil {
			return err
		}
		fmt.Fprintln(t.out, ev)
		if ev.Kind == kind && ev.Path == path {
			return nil
		}
	}
}

const explanation = `
shop     rest_for_one: a failure takes down what was started later, for it depends on what failed
stock    a function; permanent: started again whatever it returns
counter  an actor of protoactor-go
mail     a supervisor of its own: two restarts a minute, with back-off, before it gives up; transient,
         so it is restarted when it gave up, and not when it was done
queue    a function, restarted alone
report   a function; temporary: when it ends, its spec is gone
`
