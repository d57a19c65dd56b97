package grpcserver_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"github.com/coppice-go/coppice/runtime/grpcserver"
	"github.com/coppice-go/coppice/tracing/grpctrace"
)

// start serves, and returns a client's connection and the end of Serve.
func start(t *testing.T, s *grpcserver.Server) (*grpc.ClientConn, <-chan error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }() // ends with s, which each test ends
	conn, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, served
}

// TestDrain: a client that watches the health of the server, which has no end, does not hold up
// the drain; a call that runs does, and has its answer.
func TestDrain(t *testing.T) {
	running, answer := make(chan struct{}), make(chan struct{})
	slow := func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		close(running)
		<-answer
		return next(ctx, req)
	}
	s := grpcserver.New(insecure.NewCredentials(), grpc.UnaryInterceptor(slow))
	conn, served := start(t, s)
	client := healthpb.NewHealthClient(conn)
	watch, err := client.Watch(t.Context(), new(healthpb.HealthCheckRequest))
	if err != nil {
		t.Fatal(err)
	}
	if r, err := watch.Recv(); err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("at first it is %v, %v", r, err)
	}
	called := make(chan error, 1)
	go func() { // ends with the answer
		r, err := client.Check(t.Context(), new(healthpb.HealthCheckRequest))
		if err == nil && r.Status != healthpb.HealthCheckResponse_NOT_SERVING {
			t.Errorf("in the drain it is %v", r.Status)
		}
		called <- err
	}()
	<-running
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(t.Context()) }() // ends with the call
	for err == nil {
		_, err = watch.Recv()
	}
	select {
	case err := <-down:
		t.Fatalf("Shutdown has returned (%v) before the call", err)
	default:
	}
	close(answer)
	for what, ch := range map[string]<-chan error{"the call": called, "Shutdown": down, "Serve": served} {
		if err := <-ch; err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestDeadline: what the drain's deadline finds is cut by Close.
func TestDeadline(t *testing.T) {
	running := make(chan struct{})
	stuck := func(ctx context.Context, _ any, _ *grpc.UnaryServerInfo, _ grpc.UnaryHandler) (any, error) {
		close(running)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s := grpcserver.New(insecure.NewCredentials(), grpc.UnaryInterceptor(stuck))
	conn, served := start(t, s)
	called := make(chan error, 1)
	go func() { // ends with the server
		_, err := healthpb.NewHealthClient(conn).Check(t.Context(), new(healthpb.HealthCheckRequest))
		called <- err
	}()
	<-running
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-called; err == nil {
		t.Error("the call was answered")
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// TestStoppedBeforeServe: a server that is stopped before it begins to serve was stopped in order.
func TestStoppedBeforeServe(t *testing.T) {
	s := grpcserver.New(insecure.NewCredentials())
	if err := s.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, served := start(t, s); <-served != nil {
		t.Error("Serve returned an error")
	}
}

// TestTraced: a call has its connection's trace, by the credentials of grpctrace.
func TestTraced(t *testing.T) {
	traced := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if p, _ := peer.FromContext(ctx); p.AuthInfo == grpctrace.AuthInfo(p.AuthInfo) {
			t.Errorf("the connection is a plain %T", p.AuthInfo)
		}
		return next(ctx, req)
	}
	s := grpcserver.New(insecure.NewCredentials(), grpc.UnaryInterceptor(traced))
	conn, served := start(t, s)
	if _, err := healthpb.NewHealthClient(conn).Check(t.Context(), new(healthpb.HealthCheckRequest)); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
