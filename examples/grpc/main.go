// Grpc is a gRPC service in worker processes. Its own part is server, which
// teaches Worker.Serve how a gRPC server drains: GOAWAY, and the calls that run
// finish.
//
//	go run . -addr 127.0.0.1:9000
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	coppice "github.com/coppice-go/coppice/runtime"
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
				s := grpc.NewServer()
				registerClock(s, clock{w, ctx})
				healthpb.RegisterHealthServer(s, health.NewServer())
				return w.Serve(ctx, ln, server{s})
			},
		}},
	})
}

// server is a gRPC server as Worker.Serve wants it.
type server struct{ *grpc.Server }

// Serve serves until Shutdown or Close, which may come first.
func (s server) Serve(ln net.Listener) error {
	if err := s.Server.Serve(ln); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// Shutdown sends GOAWAY on every connection and waits for the calls that run, until
// ctx ends. What then still runs Worker.Serve counts, and cuts by Close.
func (s server) Shutdown(ctx context.Context) error {
	done := make(chan struct{})
	go func() { // ends with the last call, or by Close
		defer close(done)
		s.GracefulStop()
	}()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close cuts every call.
func (s server) Close() error {
	s.Stop()
	return nil
}

func announce(rt *coppice.Runtime) {
	for _, l := range rt.Listeners() {
		fmt.Printf("grpc://%s/  master pid %d\n", l.Addr, os.Getpid())
	}
	fmt.Print(rt.Snapshot())
}

// interval is that of clock.Tick.
const interval = 100 * time.Millisecond
