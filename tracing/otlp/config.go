package otlp

import (
	"os"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/tracing"
)

// Config is the set-up by code. A zero field leaves the matter to the environment.
type Config struct {
	Endpoint    string            // of the collector, as http://localhost:4318; OTEL_EXPORTER_OTLP_ENDPOINT
	Protocol    string            // http/protobuf or grpc; OTEL_EXPORTER_OTLP_PROTOCOL
	Headers     map[string]string // of each request to the collector; only the master sends any
	Traces      string            // otlp or none; OTEL_TRACES_EXPORTER
	Metrics     string            // otlp, prometheus or none; OTEL_METRICS_EXPORTER
	ServiceName string            // OTEL_SERVICE_NAME
	Attributes  []attribute.KeyValue

	// SampleRatio is the part of the traces that is sampled, 0 to 1, decided at
	// accept; nil is OTEL_TRACES_SAMPLER. What a client has decided is followed.
	SampleRatio *float64
}

// Use sets the backend up by code: call it before the tree is started, where every
// process of the tree comes by. It returns an error that wraps ErrSetting, and
// changes nothing, when cfg or the environment under it cannot be followed.
func Use(cfg Config) error {
	if r := cfg.SampleRatio; r != nil && !(*r >= 0 && *r <= 1) {
		return badSetting("SampleRatio", attribute.Float64Value(*r).String(), "want 0 to 1")
	}
	if _, err := readSettings(cfg.getenv); err != nil {
		return err
	}
	configured.Store(&cfg)
	tracing.Register(backend{})
	return nil
}

// getenv is os.Getenv with what the program has set in its place.
func (c Config) getenv(name string) string {
	set := ""
	switch name {
	case "OTEL_EXPORTER_OTLP_ENDPOINT":
		set = c.Endpoint
	case "OTEL_EXPORTER_OTLP_PROTOCOL":
		set = c.Protocol
	case "OTEL_TRACES_EXPORTER":
		set = c.Traces
	case "OTEL_METRICS_EXPORTER":
		set = c.Metrics
	case "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT":
		if c.Endpoint != "" {
			return "" // the program's endpoint is for both
		}
	case "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL":
		if c.Protocol != "" {
			return ""
		}
	}
	if set != "" {
		return set
	}
	return os.Getenv(name)
}

// resource is what the program says of itself.
func (c Config) resource() []attribute.KeyValue {
	attrs := c.Attributes
	if c.ServiceName != "" {
		attrs = append(attrs[:len(attrs):len(attrs)], tracing.KeyServiceName.String(c.ServiceName))
	}
	return attrs
}

// exporterOptions are what the program has set, as options of one of the exporters. path is
// that of the signal, which gRPC has none of.
func exporterOptions[O any](c Config, path string, endpoint func(url string) O, headers func(map[string]string) O) (opts []O) {
	if c.Endpoint != "" {
		opts = append(opts, endpoint(strings.TrimSuffix(c.Endpoint, "/")+path))
	}
	if c.Headers != nil {
		opts = append(opts, headers(c.Headers))
	}
	return opts
}
