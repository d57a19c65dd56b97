// Package otlpgrpc lets package otlp export by gRPC. A program imports it for its effect, beside
// package otlp:
//
//	import _ "github.com/coppice-go/coppice/tracing/otlp/otlpgrpc"
//
// Without it OTEL_EXPORTER_OTLP_PROTOCOL=grpc is an error. It is a package of its own since each
// process of a tree pays at its start for what is compiled into it.
package otlpgrpc

import (
	"context"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/coppice-go/coppice/tracing/otlp/internal/clients"
)

func init() {
	clients.GRPC = &clients.Maker{
		Traces: func(to clients.Destination) otlptrace.Client {
			return otlptracegrpc.NewClient(clients.Settings(to, otlptracegrpc.WithEndpointURL, otlptracegrpc.WithHeaders)...)
		},
		Metrics: func(ctx context.Context, to clients.Destination) (sdkmetric.Exporter, error) {
			return otlpmetricgrpc.New(ctx, clients.Settings(to, otlpmetricgrpc.WithEndpointURL, otlpmetricgrpc.WithHeaders)...)
		},
	}
}
