// Grpc is a gRPC service in worker processes, which drains as package grpcserver
// has it: GOAWAY, and the calls that run finish.
//
//	go run . -addr 127.0.0.1:9000
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc/credentials/insecure"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/grpcserver"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:9000", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 2, "worker processes")
	shutdown := flag.Duration("shutdown", 10*time.Second, "how long a worker may take to end")
	client := flag.String("ask", "", "be a client of this `address` instead, for ten seconds")
	flag.Parse()
	if *client != "" {
		if err := ask(*client, 10, time.Second); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}

	coppice.Main(coppice.Config{
		Hooks: coppice.Hooks{Started: announce},
		Children: []coppice.ChildSpec{coppice.Pool{
			Name: "rpc", Size: *workers, Shutdown: *shutdown,
			Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listen("tcp", *addr)
				if err != nil {
					return err
				}
				s := grpcserver.New(insecure.NewCredentials())
				registerClock(s, clock{w, ctx})
				return w.Serve(ctx, ln, s)
			},
		}},
	})
}

func announce(rt *coppice.Runtime) {
	for _, l := range rt.Listeners() {
		fmt.Printf("grpc://%s/  master pid %d\n", l.Addr, os.Getpid())
	}
	fmt.Print(rt.Snapshot())
}

// interval is that of clock.Tick.
const interval = 100 * time.Millisecond
