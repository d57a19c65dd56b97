// Sessions is a keyed session store that is spread over worker processes and
// survives the kill of any of them. Each session lives in two workers; any worker
// answers for all of them.
//
//	go run ./examples/sessions -addr 127.0.0.1:8000 -workers 4
//	go run ./examples/sessions -chaos
//	curl -X PUT -d 'cart=3' http://127.0.0.1:8000/s/ann
//	curl -i http://127.0.0.1:8000/s/ann
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8000", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 4, "worker processes")
	isolation := flag.String("isolation", "process", "what a worker is: process or goroutine")
	broken := flag.Bool("chaos", false, "kill and reload it under clients, count at them what it cost, and end")
	flag.Parse()
	iso, err := coppice.ParseIsolation(*isolation)
	if err != nil {
		fmt.Fprintln(os.Stderr, "sessions:", err)
		os.Exit(2)
	}
	coppice.Main(coppice.Config{
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			url := fmt.Sprintf("http://%s/", rt.Listeners()[0].Addr)
			fmt.Printf("%s  master pid %d\n", url, os.Getpid())
			if *broken {
				chaos.Run(rt, func(rt *coppice.Runtime) { harm(rt, url) })
			}
		}},
		Children: []coppice.ChildSpec{coppice.Pool{Name: poolName, Size: *workers, Isolation: iso, Worker: work(*addr)}},
	})
}

const (
	poolName  = "web"
	storeName = "sessions"
)

// work is the worker function: it makes a store, fills it from its siblings, and becomes a keeper
// of sessions when it has its name.
func work(addr string) coppice.WorkerFunc {
	return func(ctx context.Context, w *coppice.Worker) error {
		sys := w.System()
		pid, err := sys.Spawn(ctx, storeName, func() actor.Actor { return newStore() })
		if err != nil {
			return err
		}
		c := &client{sys: sys, group: sys.Group(poolName, storeName)}
		n, err := c.restore(ctx, pid)
		if err != nil {
			return err
		}
		if n > 0 {
			fmt.Fprintf(os.Stderr, "%s restored %d sessions\n", w.Name(), n)
		}
		ln, err := w.Listen("tcp", addr)
		if err != nil {
			return err
		}
		return w.Serve(ctx, ln, &http.Server{Handler: &api{client: c, name: w.Name(), id: w.ID()}})
	}
}
