// Grpc is a gRPC service in worker processes, which drains as package grpcserver
// has it: GOAWAY, and the calls that run finish.
//
//	go -C examples/grpc run . -addr 127.0.0.1:9000
//	go -C examples/grpc run . -chaos
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc/credentials/insecure"

	"github.com/coppice-go/coppice/examples/internal/chaos"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/grpcserver"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:9000", "listen `address`; port 0 picks one")
	workers := flag.Int("workers", 2, "worker processes")
	shutdown := flag.Duration("shutdown", 10*time.Second, "how long a worker may take to end")
	client := flag.String("ask", "", "be a client of this `address` instead, for ten seconds")
	broken := flag.Bool("chaos", false, "kill and reload it under clients, count at them what it cost, and end")
	flag.Parse()
	if *client != "" {
		if err := ask(*client, 10, time.Second); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}

	coppice.Main(coppice.Config{
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			addr := rt.Listeners()[0].Addr.String()
			fmt.Printf("grpc://%s/  master pid %d\n", addr, os.Getpid())
			if *broken {
				chaos.Run(rt, func(rt *coppice.Runtime) { harm(rt, addr) })
			} else {
				fmt.Print(rt.Snapshot())
			}
		}},
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

// interval is that of clock.Tick.
const interval = 20 * time.Millisecond
