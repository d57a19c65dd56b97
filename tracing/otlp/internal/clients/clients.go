// Package clients is where package otlpgrpc leaves its exporters for package otlp.
package clients

import (
	"context"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// A Destination is where an exporter sends. A field that is not set is the environment's.
type Destination struct {
	Endpoint string // a URL
	Headers  map[string]string
}

// Maker makes exporters of one protocol. Neither function waits for a connection.
type Maker struct {
	Traces  func(Destination) otlptrace.Client
	Metrics func(context.Context, Destination) (sdkmetric.Exporter, error)
}

// GRPC is set by the init of package otlpgrpc; nil: the program does not import it.
var GRPC *Maker

// Settings returns to as options of an exporter.
func Settings[T any](to Destination, endpoint func(url string) T, headers func(map[string]string) T) (opts []T) {
	if to.Endpoint != "" {
		opts = append(opts, endpoint(to.Endpoint))
	}
	if to.Headers != nil {
		opts = append(opts, headers(to.Headers))
	}
	return opts
}
