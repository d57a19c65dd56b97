// Hello is a web service run as a supervised tree: a master that holds the
// port, a listener process, and workers that answer. Kill any of them and ask
// again.
//
//	go run ./examples/hello -addr 127.0.0.1:8000 -workers 4
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/dashboard"
	"github.com/coppice-go/coppice/supervisor"
)

func main() {
	var (
		addr      = flag.String("addr", "127.0.0.1:8000", "listen `address`; port 0 picks one")
		workers   = flag.Int("workers", 2, "worker processes")
		policy    = flag.String("policy", "round-robin", "how connections are shared out: round-robin, least-loaded, hash, shared or reuseport")
		isolation = flag.String("isolation", "process", "what a worker is: process or goroutine")
		restarts  = flag.Int("restarts", 250, "restarts within 10 s that are made at once")
		otp       = flag.Bool("otp", false, "beyond -restarts the pool gives up, and the program with it, as in OTP")
		boot      = flag.Duration("start-timeout", 30*time.Second, "how long a worker may take until it is ready")
		page      = flag.String("page", "", "`address` of a page that shows and steers the tree")
		quiet     = flag.Bool("quiet", false, "print and log errors only")
	)
	flag.Parse()

	pol, err := coppice.ParsePolicy(*policy)
	if err != nil {
		usage("-policy", err)
	}
	iso, err := coppice.ParseIsolation(*isolation)
	if err != nil {
		usage("-isolation", err)
	}
	if _, _, err := net.SplitHostPort(*addr); err != nil {
		usage("-addr", err)
	}
	if *workers < 1 {
		usage("-workers", fmt.Errorf("%d is not at least 1", *workers))
	}

	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level(*quiet)}))
	coppice.Main(coppice.Config{
		Logger: logger,
		Hooks:  coppice.Hooks{Started: announce(*page, *quiet)},

		ListenerIsolation: iso,
		Intensity:         supervisor.Intensity{Period: 10 * time.Second}, // no second chance for a pool that gave up
		Children: []coppice.ChildSpec{coppice.Pool{
			Name:      "web",
			Size:      *workers,
			Isolation: iso,

			StartTimeout: *boot,
			OTP:          *otp,
			Intensity:    supervisor.Intensity{Max: *restarts, Period: 10 * time.Second},
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{
					Name: "http", Network: "tcp", Address: *addr, Policy: pol,
				})
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, &http.Server{Handler: routes(w)})
			},
		}},
	})
}

// announce returns the hook that prints what a reader wants first: where to
// point a browser, whom to signal, and the tree. It serves the page too.
func announce(page string, quiet bool) func(*coppice.Runtime) {
	return func(rt *coppice.Runtime) {
		for _, l := range rt.Listeners() {
			fmt.Printf("http://%s/  master pid %d\n", l.Addr, os.Getpid())
		}
		if !quiet {
			fmt.Print(rt.Snapshot())
		}
		if page != "" {
			ln, err := net.Listen("tcp", page)
			if err != nil {
				fmt.Fprintln(os.Stderr, "hello: -page:", err)
				return
			}
			fmt.Printf("the page: http://%s/\n", ln.Addr())
			api := rt.ControlHandler(coppice.ControlOptions{Writes: true}) // use an address of this machine: it does not ask who its clients are
			go func() { _ = http.Serve(ln, dashboard.Handler(api)) }()     // until the program ends
		}
	}
}

func level(quiet bool) slog.Level {
	if quiet {
		return slog.LevelError
	}
	return slog.LevelInfo
}

func usage(flag string, err error) {
	fmt.Fprintf(os.Stderr, "hello: %s: %v\n", flag, err)
	os.Exit(2)
}

// routes are the pages of one worker.
func routes(w *coppice.Worker) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(rw http.ResponseWriter, r *http.Request) {
		answer(rw, map[string]int{"worker": w.Slot(), "id": w.ID(), "pid": os.Getpid()})
	})
	mux.HandleFunc("GET /sleep", func(rw http.ResponseWriter, r *http.Request) {
		time.Sleep(millis(r))
		answer(rw, map[string]int{"worker": w.Slot(), "slept_ms": int(millis(r).Milliseconds())})
	})
	mux.HandleFunc("GET /block", func(rw http.ResponseWriter, r *http.Request) {
		block(millis(r))
		answer(rw, map[string]int{"worker": w.Slot(), "blocked_ms": int(millis(r).Milliseconds())})
	})
	mux.HandleFunc("GET /crash", func(rw http.ResponseWriter, r *http.Request) {
		err := crash(r.FormValue("how")) // returns only when it cannot
		http.Error(rw, err.Error(), http.StatusBadRequest)
	})
	mux.HandleFunc("GET /tree", func(rw http.ResponseWriter, r *http.Request) {
		tree, err := w.Tree(r.Context()) // an actor message to the master
		if err != nil {
			http.Error(rw, err.Error(), http.StatusBadGateway)
			return
		}
		answer(rw, tree)
	})
	return mux
}

func answer(rw http.ResponseWriter, v any) {
	rw.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(rw).Encode(v) // an error here is a client that left
}

func millis(r *http.Request) time.Duration {
	d, err := time.ParseDuration(r.FormValue("ms") + "ms")
	if err != nil || d < 0 {
		return 0
	}
	return min(d, time.Minute)
}
