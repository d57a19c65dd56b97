package coppice_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// inOneProcess has the pools of an example as goroutines; a program leaves the fields out.
func inOneProcess(children ...coppice.ChildSpec) coppice.Config {
	for i, c := range children {
		if p, ok := c.(coppice.Pool); ok {
			p.Isolation = coppice.GoroutineIsolation
			children[i] = p
		}
	}
	return coppice.Config{
		ListenerIsolation: coppice.GoroutineIsolation,
		Logger:            slog.New(slog.DiscardHandler),
		Children:          children,
	}
}

// start returns the tree that runs, or ends the example.
func start(cfg coppice.Config) (*coppice.Runtime, func()) {
	rt, err := coppice.Start(context.Background(), cfg)
	if err != nil {
		panic(err)
	}
	return rt, func() {
		if err := rt.Shutdown(context.Background()); err != nil {
			fmt.Println(err)
		}
	}
}

// answer returns the body of an answer.
func answer(rt *coppice.Runtime) string {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // a connection for each request
	resp, err := client.Get("http://" + rt.Listeners()[0].Addr.String())
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Two workers share an address, and connections go to them in turn.
func Example() {
	rt, end := start(inOneProcess(coppice.Pool{Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
		ln, err := w.Listen("tcp", "127.0.0.1:0") // asks the master, which opens or shares the socket
		if err != nil {
			return err
		}
		return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(rw, "hello from ", w.Name())
		})})
	}}))
	defer end()
	one, two := answer(rt), answer(rt)
	fmt.Println(min(one, two))
	fmt.Println(max(one, two))
	// Output:
	// hello from web/0
	// hello from web/1
}

// The shortest program: four workers, and defaults everywhere else. Serve does not return.
func ExampleServe() {
	coppice.Serve(4, func(ctx context.Context, w *coppice.Worker) error {
		ln, err := w.Listen("tcp", ":8000")
		if err != nil {
			return err
		}
		return w.Serve(ctx, ln, &http.Server{Handler: http.FileServer(http.Dir("."))})
	})
}

// A tree that is the whole program. Main handles signals, speaks to systemd, and does not return.
func ExampleMain() {
	coppice.Main(coppice.Config{Children: []coppice.ChildSpec{
		coppice.Actor{Name: "visits", New: func() actor.Actor { return &counter{} }},
		coppice.Pool{Name: "web", Worker: func(ctx context.Context, w *coppice.Worker) error { return nil }},
	}})
}

// A tree within a main of one's own: it ends with its context, or because it gave up.
func ExampleRun() {
	ctx, cancel := context.WithCancel(context.Background())
	cfg := inOneProcess(coppice.Func{Name: "clock", Run: func(ctx context.Context) error {
		<-ctx.Done()
		return nil
	}})
	cfg.Hooks.Started = func(rt *coppice.Runtime) {
		fmt.Println("every child is up")
		cancel() // as signal.NotifyContext does
	}
	err := coppice.Run(ctx, cfg)
	fmt.Println("exit code", coppice.ExitCode(err))
	// Output:
	// every child is up
	// exit code 0
}

// counter counts the messages that it gets.
type counter struct{ n int }

func (c *counter) Receive(ctx actor.Context) {
	if _, ok := ctx.Message().(string); ok {
		c.n++
		ctx.Respond(c.n)
	}
}

// What all workers need is in an actor of the master, which they ask by its name.
func ExampleActor() {
	rt, end := start(inOneProcess(
		coppice.Actor{Name: "visits", New: func() actor.Actor { return &counter{} }},
		coppice.Pool{Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
			if _, err := actors.Ask[int](ctx, w.System(), w.Lookup("visits"), "hello"); err != nil {
				return err
			}
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		}},
	))
	defer end()
	fmt.Println(actors.Ask[int](context.Background(), rt.System(), rt.Lookup("visits"), "hello"))
	// Output: 3 <nil>
}

// A reload gives the workers a new configuration, and in processes the program that is now at its
// path, one worker after the other. One that fails leaves the old workers.
func ExampleRuntime_Reload() {
	greeting := "good morning"
	cfg := inOneProcess(coppice.Pool{Name: "web", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
		if len(w.Config()) == 0 {
			return errors.New("the greeting is empty")
		}
		ln, err := w.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write(w.Config())
		})})
	}})
	cfg.Load = func(context.Context) ([]byte, error) { return []byte(greeting), nil }
	rt, end := start(cfg)
	defer end()
	for _, greeting = range []string{"good evening", ""} {
		err := rt.Reload(context.Background())
		fmt.Println(answer(rt), err != nil)
	}
	// Output:
	// good evening false
	// good evening true
}

// A worker that ends is replaced, and the events tell of it.
func ExampleRuntime_Events() {
	fail := make(chan error)
	rt, end := start(inOneProcess(coppice.Pool{Name: "web", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
		if err := w.Ready(); err != nil {
			return err
		}
		select {
		case err := <-fail:
			return err
		case <-ctx.Done():
			return nil
		}
	}}))
	defer end()
	events := rt.Events(coppice.FromNow)
	fail <- errors.New("lost the database")
	for {
		e, err := events.Next(context.Background())
		if err != nil || e.Kind == coppice.ChildStarted {
			fmt.Println(e.Path, "incarnation", e.Incarnation)
			return
		}
		if e.Kind == coppice.ChildExited {
			fmt.Println(e.Path, e.Reason)
		}
	}
	// Output:
	// web/0 error: lost the database
	// web/0 incarnation 2
}

// A spare has done the slow part of its start, and takes the slot of a worker that ends at once.
func ExamplePool_spare() {
	fail, took := make(chan error), make(chan int, 2)
	rt, end := start(inOneProcess(coppice.Pool{
		Name: "web", Size: 1, Spares: 1,
		Prepare: func(context.Context, *coppice.Worker) error { return nil }, // load the model
		Worker: func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			took <- w.Slot()
			select {
			case err := <-fail:
				return err
			case <-ctx.Done():
				return nil
			}
		},
	}))
	defer end()
	fmt.Println("slot", <-took)
	for e := range rt.Events(0).All(context.Background()) { // from the first one on
		if e.Kind == coppice.SpareReady {
			break
		}
	}
	fail <- errors.New("lost the database")
	fmt.Println("slot", <-took)
	// Output:
	// slot 0
	// slot 0
}

// Requests are known by their route, so that one with the poison in its query is found too.
func ExamplePoison() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /thumb/{name}", func(http.ResponseWriter, *http.Request) {})
	pool := coppice.Pool{Name: "web", Poison: coppice.Poison{Deaths: 2, Key: func(r *http.Request) string {
		_, route := mux.Handler(r)
		return route
	}}}
	r, err := http.NewRequest("GET", "/thumb/a.png?size=-1", nil)
	if err != nil {
		panic(err)
	}
	fmt.Println(pool.Poison.Key(r))
	// Output: GET /thumb/{name}
}

// A child that fails takes those after it along; the actor before it keeps what it knows.
func ExampleSupervisor() {
	fail := make(chan error)
	rt, end := start(inOneProcess(coppice.Supervisor{
		Name: "shop", Strategy: supervisor.RestForOne,
		Children: []coppice.ChildSpec{
			coppice.Actor{Name: "stock", New: func() actor.Actor { return &counter{} }},
			coppice.Func{Name: "import", Run: func(ctx context.Context) error {
				select {
				case err := <-fail:
					return err
				case <-ctx.Done():
					return nil
				}
			}},
		},
	}))
	defer end()
	fmt.Println(actors.Ask[int](context.Background(), rt.System(), rt.Lookup("shop/stock"), "one"))
	events := rt.Events(coppice.FromNow)
	fail <- errors.New("the file is cut")
	for e := range events.All(context.Background()) {
		if e.Kind == coppice.ChildStarted {
			fmt.Println(e.Path, "is there again")
			break
		}
	}
	fmt.Println(actors.Ask[int](context.Background(), rt.System(), rt.Lookup("shop/stock"), "two"))
	// Output:
	// 1 <nil>
	// shop/import is there again
	// 2 <nil>
}

// A listener of the tree: it has a name, is there before the workers, and bounds what they get.
func ExampleListenerSpec() {
	rt, end := start(inOneProcess(
		coppice.ListenerSpec{
			Name: "http", Network: "tcp", Address: "127.0.0.1:0",
			Policy: coppice.LeastLoaded, Limits: coppice.Limits{PerWorker: 100},
		},
		coppice.Pool{Name: "web", Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
			ln, err := w.Listener(ctx, "http")
			if err != nil {
				return err
			}
			return w.Serve(ctx, ln, &http.Server{Handler: http.NotFoundHandler()})
		}},
	))
	defer end()
	for _, l := range rt.Listeners() {
		fmt.Println(l.Name, l.Addr.Network(), l.Policy)
	}
	// Output: http tcp least-loaded
}

// What is known of a death goes to a hook; CrashFiles is one that writes a directory for each.
func ExampleHooks() {
	reports := make(chan coppice.CrashReport, 1)
	fail := make(chan error)
	cfg := inOneProcess(coppice.Pool{Name: "web", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
		if err := w.Ready(); err != nil {
			return err
		}
		select {
		case err := <-fail:
			panic(err)
		case <-ctx.Done():
			return nil
		}
	}})
	cfg.Hooks.Crash = func(r coppice.CrashReport) { reports <- r }
	_, end := start(cfg)
	defer end()
	fail <- errors.New("no such shelf")
	r := <-reports
	fmt.Println(r.Name, "generation", r.Generation, r.Reason)
	// Output: web/0 generation 1 panic: no such shelf
}

// A release is tried in one of two slots, and goes back by itself when the program says so.
func ExampleCanary() {
	rt, end := start(inOneProcess(coppice.Pool{
		Name: "web", Size: 2,
		Liveness: coppice.Liveness{Every: 10 * time.Millisecond, Timeout: time.Minute},
		Canary: coppice.Canary{Slots: 1, For: time.Hour, Judge: func(_ context.Context, before, after int) error {
			return fmt.Errorf("orders of generation %d are less than those of %d", after, before)
		}},
		Worker: func(ctx context.Context, w *coppice.Worker) error {
			if err := w.Ready(); err != nil {
				return err
			}
			<-ctx.Done()
			return nil
		},
	}))
	defer end()
	err := rt.Reload(context.Background())
	fmt.Println(errors.Is(err, coppice.ErrWorse))
	rt.Snapshot().Walk(func(t coppice.Tree) {
		if t.Role == coppice.RoleWorker {
			fmt.Println(t.Name, "generation", t.Generation)
		}
	})
	// Output:
	// true
	// web/0 generation 1
	// web/1 generation 1
}
