// Browsertest is the tree that the page's tests look at, as a program of its own:
//
//	go run . -page 127.0.0.1:9000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/dashboard"
	"github.com/coppice-go/coppice/runtime/jobs"
	"github.com/coppice-go/coppice/supervisor"
)

func main() {
	page := flag.String("page", "127.0.0.1:0", "`address` of the page")
	workers := flag.Int("workers", 3, "workers of the pool web")
	goroutines := flag.Bool("goroutines", false, "its workers are goroutines")
	carts := flag.Int("actors", 3, "actors")
	pool := flag.Bool("jobs", false, "has a pool of jobs, resize, with a key that is quarantined")
	judges := flag.Bool("judges", false, "the pool web refuses requests that kill, and has a canary")
	spoil := flag.String("spoil", "", "while there is a `file` of this name, no worker of a later generation starts")
	flag.Parse()
	isolation := coppice.ProcessIsolation
	if *goroutines {
		isolation = coppice.GoroutineIsolation
	}
	var actors []coppice.ChildSpec
	for i := range *carts {
		actors = append(actors, coppice.Actor{Name: fmt.Sprintf("cart%d", i), New: func() actor.Actor { return cart{} }})
	}
	if *pool {
		actors = append(actors, jobs.Pool(jobs.Config{Pool: coppice.Pool{Name: "resize", Size: 1, Isolation: isolation, Intensity: supervisor.Intensity{Max: 100, Period: 10 * time.Second}}}, jobs.Handle("resize", resize)))
	}
	var poison coppice.Poison
	var canary coppice.Canary
	if *judges {
		poison, canary = coppice.Poison{Deaths: 2, Probe: time.Hour}, coppice.Canary{Slots: 1, For: time.Hour}
	}
	slow := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	coppice.Main(coppice.Config{
		Logger:            slow,
		Control:           coppice.Control{Off: true}, // the page is mounted
		ListenerIsolation: isolation,
		Hooks:             coppice.Hooks{Started: mount(*page)},
		Children: []coppice.ChildSpec{
			coppice.Supervisor{Name: "carts", Children: actors},
			coppice.Pool{
				Name: "web", Size: *workers, Isolation: isolation, Intensity: supervisor.Intensity{Max: 100, Period: 10 * time.Second},
				Poison: poison, Canary: canary,
				Worker: func(ctx context.Context, w *coppice.Worker) error {
					ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Name: "http", Network: "tcp", Address: "127.0.0.1:0"})
					if err != nil {
						return err
					}
					if _, err := w.System().Spawn(ctx, "stock", func() actor.Actor { return stock{} }); err != nil {
						return err
					}
					return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
						_ = w.System().Send(r.Context(), w.Lookup(w.Name()+"/stock"), order{}) // a figure more or less
						serve(rw, r)
					})})
				},
			},
			coppice.Pool{
				Name: "mail", Size: 1, Isolation: isolation, Liveness: coppice.Liveness{Timeout: time.Minute}, Intensity: supervisor.Intensity{Max: 2, Period: time.Hour},
				Worker: func(ctx context.Context, w *coppice.Worker) error {
					if _, err := os.Stat(*spoil); err == nil && w.Generation() > 1 {
						return errors.New("the post office is closed")
					}
					err := w.Ready()
					<-ctx.Done()
					return err
				},
			},
		},
	})
}

// mount returns the hook that serves the page: with steering below /ops/, without below /look/.
func mount(addr string) func(*coppice.Runtime) {
	return func(rt *coppice.Runtime) {
		mux := http.NewServeMux()
		mux.Handle("/ops/", http.StripPrefix("/ops", dashboard.Handler(rt.ControlHandler(coppice.ControlOptions{Writes: true}))))
		mux.Handle("/look/", http.StripPrefix("/look", dashboard.Handler(rt.ControlHandler(coppice.ControlOptions{}))))
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return
		}
		mux.HandleFunc("/wait", func(http.ResponseWriter, *http.Request) { // a call runs, and another waits
			for range 2 {
				jobs.Start[string](context.Background(), rt, "carts/resize/resize", "wait", jobs.Options{Key: "a.png"})
			}
		})
		go die(rt)
		for _, l := range rt.Listeners() {
			fmt.Printf("shop http://%s/\n", l.Addr)
		}
		fmt.Printf("page http://%s/ops/\n", ln.Addr())
		go func() { _ = http.Serve(ln, mux) }() // until the program ends
	}
}

// resize is the function of the pool of jobs: it kills its worker, or has no end.
func resize(ctx context.Context, how string) (string, error) {
	if how == "die" {
		os.Exit(3)
	}
	<-ctx.Done()
	return "", ctx.Err()
}

// die has a key quarantined in the pool of jobs.
func die(rt *coppice.Runtime) {
	for range 2 {
		_, _ = jobs.Start[string](context.Background(), rt, "carts/resize/resize", "die", jobs.Options{Key: "b.png"}).Wait() // there may be no such pool
	}
}

// serve says what the query wants to be said, does work, or ends the process.
func serve(w http.ResponseWriter, r *http.Request) {
	if s := r.FormValue("say"); s != "" {
		fmt.Println(s)
	}
	if s := r.FormValue("crash"); s != "" {
		go panic(s)
		select {}
	}
	until := time.Now().Add(time.Millisecond)
	for time.Now().Before(until) { // some processor time
	}
	fmt.Fprintln(w, os.Getpid())
}

// stock is an actor of each worker.
type stock struct{}

type order struct{}

func (stock) Receive(actor.Context) {}
func (stock) Inspect() any          { return "7 apples" }

type cart struct{}

func (cart) Receive(actor.Context) {}
