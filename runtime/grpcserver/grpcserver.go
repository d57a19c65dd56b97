// Package grpcserver is a gRPC server for a worker: Worker.Serve drains it, clients learn of the
// drain by the health service, and calls belong to the traces of their connections.
//
//	s := grpcserver.New(insecure.NewCredentials())
//	pb.RegisterClockServer(s, clock{ctx})
//	return w.Serve(ctx, ln, s)
//
// When the worker is asked to stop, each service of [Server.Health] is NOT_SERVING, each connection
// gets GOAWAY, which has clients connect anew, and the calls that run finish. A stream without an
// end holds up the drain to its deadline, where it is cut: its handler is to end it when the
// worker's context ends. Streams of the health service are ended.
package grpcserver

import (
	"context"
	"errors"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/coppice-go/coppice/tracing/grpctrace"
)

// A Server is a gRPC server as Worker.Serve wants it. Services are registered with it as with a
// grpc.Server, before Serve.
type Server struct {
	*grpc.Server

	// Health is the service grpc.health.v1.Health. The name "" is SERVING from the start; other
	// names are the program's to set.
	Health *health.Server

	watches context.Context // of Health
	end     context.CancelFunc
}

// New returns a server with the credentials, the health service and the options. To have a span for
// each call, add grpc.StatsHandler(otelgrpc.NewServerHandler(…)) with the provider of
// [grpctrace.Provider].
func New(creds credentials.TransportCredentials, opts ...grpc.ServerOption) *Server {
	s := &Server{Server: grpc.NewServer(append(grpctrace.ServerOptions(creds), opts...)...), Health: health.NewServer()}
	s.watches, s.end = context.WithCancel(context.Background())
	healthpb.RegisterHealthServer(s.Server, endingHealth{s.Health, s.watches})
	return s
}

// Serve serves ln until Shutdown or Close, which may come first, and then returns nil. It takes
// ownership of ln.
func (s *Server) Serve(ln net.Listener) error {
	if err := s.Server.Serve(ln); !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	return nil
}

// Shutdown has each service be NOT_SERVING, sends GOAWAY on every connection, and waits for the
// calls that run. When ctx ends first it returns ctx's error; Close cuts the calls that are left.
func (s *Server) Shutdown(ctx context.Context) error {
	s.Health.Shutdown()
	s.end()
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
func (s *Server) Close() error {
	s.end()
	s.Stop()
	return nil
}

// endingHealth is a health service whose streams end with a context: a client may watch for ever.
type endingHealth struct {
	*health.Server
	watches context.Context
}

func (h endingHealth) Watch(r *healthpb.HealthCheckRequest, s healthpb.Health_WatchServer) error {
	ctx, cancel := context.WithCancel(s.Context())
	defer cancel()
	defer context.AfterFunc(h.watches, cancel)()
	return h.Server.Watch(r, watch{s, ctx})
}

// watch is a stream with a context that ends earlier.
type watch struct {
	healthpb.Health_WatchServer
	ctx context.Context
}

func (w watch) Context() context.Context { return w.ctx }
