package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os/exec"
	"time"

	"github.com/coppice-go/coppice/supervisor"
)

var quiet = supervisor.Config{Logger: slog.New(slog.DiscardHandler)}

// A worker that fails once, and the supervisor that starts it again.
func Example() {
	failures := 1
	work := func(ctx context.Context) error {
		if failures > 0 {
			failures--
			return errors.New("lost the connection")
		}
		<-ctx.Done()
		return nil
	}
	hold := make(chan struct{})
	ctx := context.Background()
	s, err := supervisor.Start(ctx, supervisor.Spec{Name: "app", Children: []supervisor.ChildSpec{
		{ID: "worker", Start: supervisor.Func(func(ctx context.Context) error { <-hold; return work(ctx) })},
	}}, quiet)
	if err != nil {
		fmt.Println(err)
		return
	}
	events := s.Subscribe(16)
	close(hold)
	for ev := range events.Events(ctx) {
		fmt.Println(ev)
		if ev.Kind == supervisor.ChildStarted {
			s.Stop()
		}
	}
	// Output:
	// app/worker#1 exited: error: lost the connection
	// app/worker#1 restarting: attempt 1, 0 of 1 left, at once
	// app/worker#2 started
	// app/worker#2 stopping
	// app/worker#2 stopped: shutdown
	// app down: shutdown
}

func idle(ctx context.Context) error { <-ctx.Done(); return nil }

// The tree as it stands, printed.
func ExampleSupervisor_Snapshot() {
	ctx := context.Background()
	s, err := supervisor.Start(ctx, supervisor.Spec{
		Name: "app", Strategy: supervisor.RestForOne,
		Children: []supervisor.ChildSpec{
			{ID: "db", Start: supervisor.Func(idle)},
			{ID: "jobs", Start: supervisor.Spec{Children: []supervisor.ChildSpec{
				{ID: "mail", Start: supervisor.Func(idle), Restart: supervisor.Transient},
			}}},
		},
	}, quiet)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(s.Snapshot())
	fmt.Println(s.Shutdown(ctx))
	// Output:
	// app running, rest_for_one, 1 of 1 restarts left
	// ├── db#1 running, permanent
	// └── jobs#1 running, one_for_one, 1 of 1 restarts left, permanent
	//     └── mail#1 running, transient
	// <nil>
}

// A Dynamic supervisor starts copies of one template on request.
func ExampleSupervisor_StartChild() {
	ctx := context.Background()
	s, err := supervisor.Start(ctx, supervisor.Spec{
		Name: "sessions", Strategy: supervisor.Dynamic,
		Children: []supervisor.ChildSpec{{ID: "session", Start: supervisor.Func(idle), Restart: supervisor.Temporary}},
	}, quiet)
	if err != nil {
		fmt.Println(err)
		return
	}
	greet := supervisor.Func(func(ctx context.Context) error { return idle(ctx) }) // its own arguments, by a closure
	c, err := s.StartChild(ctx, supervisor.ChildSpec{Start: greet})
	fmt.Println(c.Path, err)
	c, err = s.StartChild(ctx, supervisor.ChildSpec{ID: "ann"})
	fmt.Println(c.Path, err)
	fmt.Println(s.TerminateChild(ctx, "ann"))
	n, err := s.CountChildren(ctx)
	fmt.Println(n.Active, err)
	s.Kill()
	<-s.Done()
	// Output:
	// sessions/session-1 <nil>
	// sessions/ann <nil>
	// <nil>
	// 1 <nil>
}

// All faults of a spec are reported at once, each with its path.
func ExampleValidate() {
	fmt.Println(supervisor.Validate(supervisor.Spec{
		Name:      "app",
		Intensity: supervisor.Intensity{Max: 3, Period: -time.Second},
		Children: []supervisor.ChildSpec{
			{ID: "db"},
			{ID: "jobs", Start: supervisor.Spec{Children: []supervisor.ChildSpec{
				{ID: "mail", Start: supervisor.Func(idle), Significant: true},
			}}},
		},
	}))
	// Output:
	// supervisor: spec app: Intensity.Period = -1s: must not be negative
	// supervisor: spec app/db: Start must be set
	// supervisor: spec app/jobs/mail: Significant = true: conflicts with the supervisor's AutoShutdown never
	// supervisor: spec app/jobs/mail: Significant = true: conflicts with Restart permanent
}

// filter is another program as a child: it ends when its input does.
type filter struct {
	supervisor.Base // Leaked, Snapshot, Turn: nothing to say
	cmd             *exec.Cmd
	input           io.Closer
	done            chan struct{}
	err             error // set before done is closed
}

func (f *filter) Done() <-chan struct{}     { return f.done }
func (f *filter) Reason() supervisor.Reason { return supervisor.ReasonOf(f.err) }
func (f *filter) Stop()                     { _ = f.input.Close() }
func (f *filter) Kill()                     { _ = f.cmd.Process.Kill() }
func (f *filter) Info() any                 { return f.cmd.String() }

func startFilter(context.Context, supervisor.Incarnation) (supervisor.Instance, error) {
	f := &filter{cmd: exec.Command("/bin/cat"), done: make(chan struct{})}
	var err error
	if f.input, err = f.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := f.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		f.err = f.cmd.Wait()
		close(f.done)
	}()
	return f, nil
}

// A child of one's own needs a start and four methods.
func ExampleStarterFunc() {
	ctx := context.Background()
	s, err := supervisor.Start(ctx, supervisor.Spec{
		Children: []supervisor.ChildSpec{
			{ID: "filter", Start: supervisor.StarterFunc(startFilter), Restart: supervisor.Transient},
		},
	}, supervisor.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(s.Snapshot())
	if err := s.Shutdown(ctx); err != nil {
		fmt.Println(err)
	}
	fmt.Println("it ended:", s.Reason())
	// Output:
	// root running, one_for_one, 1 of 1 restarts left
	// └── filter#1 running, transient, /bin/cat
	// it ended: shutdown
}
