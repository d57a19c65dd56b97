// Package grpctrace makes a gRPC server's calls part of the traces of their connections:
//
//	opts := grpctrace.ServerOptions(insecure.NewCredentials())
//	srv := grpc.NewServer(append(opts, grpc.StatsHandler(otelgrpc.NewServerHandler(
//		otelgrpc.WithTracerProvider(grpctrace.Provider()),
//	)))...)
//
// The first call of a connection is a child of the connection's serve span. Each
// later one is a root of its own, or the child of the client that sent its trace,
// with a link to the connection, as tracing.ConnContext does it for HTTP.
package grpctrace

import (
	"context"
	"net"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/embedded"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/stats"

	"github.com/coppice-go/coppice/tracing"
)

// ServerOptions returns options that give a server its connections' traces. They replace
// grpc.Creds(creds). Put them before the options of the instrumentation: gRPC calls stats
// handlers in order.
func ServerOptions(creds credentials.TransportCredentials) []grpc.ServerOption {
	return []grpc.ServerOption{grpc.Creds(serverCreds{creds}), grpc.StatsHandler(tagger{})}
}

// serverCreds gets each connection at its handshake: gRPC shows connections to credentials only.
type serverCreds struct {
	credentials.TransportCredentials
}

func (c serverCreds) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, auth, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return conn, auth, err
	}
	return conn, traced{auth, tracing.RequestContext(context.Background(), tracing.SpanOf(raw))}, nil
}

func (c serverCreds) Clone() credentials.TransportCredentials {
	return serverCreds{c.TransportCredentials.Clone()}
}

// traced is the AuthInfo of a connection, with the connection's trace.
type traced struct {
	credentials.AuthInfo
	ctx context.Context // of the connection: its span, and the rule for its calls
}

// GetCommonAuthInfo returns how secure the connection is. gRPC finds it by a type assertion.
func (t traced) GetCommonAuthInfo() credentials.CommonAuthInfo {
	if a, ok := t.AuthInfo.(interface {
		GetCommonAuthInfo() credentials.CommonAuthInfo
	}); ok {
		return a.GetCommonAuthInfo()
	}
	return credentials.CommonAuthInfo{}
}

// AuthInfo returns what the credentials given to [ServerOptions] said of the
// client, which a handler would otherwise find in the peer itself.
func AuthInfo(a credentials.AuthInfo) credentials.AuthInfo {
	if t, ok := a.(traced); ok {
		return t.AuthInfo
	}
	return a
}

// tagger puts the connection's span into each call's context.
type tagger struct{}

func (tagger) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ctx
	}
	t, ok := p.AuthInfo.(traced)
	if !ok {
		return ctx
	}
	if s := trace.SpanFromContext(t.ctx); s.SpanContext().IsValid() {
		ctx = tracing.ContextWithSpan(ctx, tracing.FromContext(t.ctx))
		ctx = trace.ContextWithSpan(ctx, s)
		return context.WithValue(ctx, providerKey{}, s.TracerProvider())
	}
	return ctx
}

func (tagger) HandleRPC(context.Context, stats.RPCStats)                         {}
func (tagger) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (tagger) HandleConn(context.Context, stats.ConnStats)                       {}

type providerKey struct{}

// Provider returns the provider for otelgrpc, which keeps one for all connections:
// it starts each span from the provider of the connection that the context is of,
// else from OpenTelemetry's global one.
func Provider() trace.TracerProvider { return provider{} }

type provider struct{ embedded.TracerProvider }

func (provider) Tracer(name string, opts ...trace.TracerOption) trace.Tracer {
	return tracer{name: name, opts: opts}
}

type tracer struct {
	embedded.Tracer
	name string
	opts []trace.TracerOption
}

func (t tracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	p, ok := ctx.Value(providerKey{}).(trace.TracerProvider)
	if !ok {
		p = otel.GetTracerProvider()
	}
	return p.Tracer(t.name, t.opts...).Start(ctx, name, opts...)
}
