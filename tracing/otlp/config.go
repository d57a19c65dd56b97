package otlp

import (
	"os"
	"strings"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/tracing"
	"github.com/coppice-go/coppice/tracing/otlp/internal/clients"
)

// Config is the set-up by code. For a zero field the environment decides.
type Config struct {
	Endpoint    string            // of the collector, as http://localhost:4318; OTEL_EXPORTER_OTLP_ENDPOINT
	Protocol    string            // http/protobuf or grpc, which package otlpgrpc has; OTEL_EXPORTER_OTLP_PROTOCOL
	Headers     map[string]string // of each request from the master to the collector
	Traces      string            // otlp or none; OTEL_TRACES_EXPORTER
	Metrics     string            // otlp, prometheus or none; OTEL_METRICS_EXPORTER
	Producers   string            // prometheus: metrics of client_golang's default registry too; OTEL_METRICS_PRODUCERS
	ServiceName string            // OTEL_SERVICE_NAME
	Attributes  []attribute.KeyValue

	// SampleRatio is the part of the traces that is sampled, 0 to 1, decided at accept; nil
	// means OTEL_TRACES_SAMPLER. A client's decision is followed.
	SampleRatio *float64
}

// Use sets the backend up by code. Call it in every process of the tree, before the tree is
// started. If cfg or the environment has a value that cannot be used, it changes nothing and
// returns an error that wraps ErrSetting.
func Use(cfg Config) error {
	if r := cfg.SampleRatio; r != nil && !(*r >= 0 && *r <= 1) {
		return badSetting("SampleRatio", attribute.Float64Value(*r).String(), "want 0 to 1")
	}
	if _, err := readSettings(cfg.getenv); err != nil {
		return err
	}
	configured.Store(&cfg)
	tracing.Register(otlpBackend{})
	return nil
}

// getenv is os.Getenv with the values of c in place of the environment's.
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
	case "OTEL_METRICS_PRODUCERS":
		set = c.Producers
	case "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT":
		if c.Endpoint != "" {
			return "" // the program's endpoint is for both signals
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

// resource returns the program's attributes.
func (c Config) resource() []attribute.KeyValue {
	attrs := c.Attributes
	if c.ServiceName != "" {
		attrs = append(attrs[:len(attrs):len(attrs)], tracing.KeyServiceName.String(c.ServiceName))
	}
	return attrs
}

// exporter returns the endpoint and the headers of c for an exporter. path is that of the signal;
// gRPC has none.
func (c Config) exporter(path string) clients.Destination {
	to := clients.Destination{Headers: c.Headers}
	if c.Endpoint != "" {
		to.Endpoint = strings.TrimSuffix(c.Endpoint, "/") + path
	}
	return to
}
