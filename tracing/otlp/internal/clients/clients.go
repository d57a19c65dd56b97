// Package clients is where package otlpgrpc leaves its exporters for package otlp.
package clients

import (
	"context"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
)

// Options are the same for each protocol. A field that is not set is the environment's.
type Options struct {
	Endpoint string // a URL
	Headers  map[string]string
}

// Maker makes exporters of one protocol. Neither function waits for a connection.
type Maker struct {
	Traces  func(Options) otlptrace.Client
	Metrics func(context.Context, Options) (sdkmetric.Exporter, error)
}

// GRPC is set by the init of package otlpgrpc; nil: the program does not import it.
var GRPC *Maker

// Settings returns o as options of an exporter.
func Settings[T any](o Options, endpoint func(url string) T, headers func(map[string]string) T) (opts []T) {
	if o.Endpoint != "" {
		opts = append(opts, endpoint(o.Endpoint))
	}
	if o.Headers != nil {
		opts = append(opts, headers(o.Headers))
	}
	return opts
}
