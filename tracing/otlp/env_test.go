package otlp

import (
	"errors"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/tracing/otlp/internal/clients"
	_ "github.com/coppice-go/coppice/tracing/otlp/otlpgrpc"
)

// TestGRPCIsNotThere: grpc without package otlpgrpc is an error that names the variable and the
// import.
func TestGRPCIsNotThere(t *testing.T) {
	there := clients.GRPC
	defer func() { clients.GRPC = there }()
	clients.GRPC = nil
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"} {
		_, err := readSettings(func(k string) string {
			return map[string]string{name: "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}[k]
		})
		if !errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), name+`="grpc"`) || !strings.Contains(err.Error(), `import _ "github.com/coppice-go/coppice/tracing/otlp/otlpgrpc"`) {
			t.Error(err)
		}
	}
	if err := Use(Config{Endpoint: "http://collector:4317", Protocol: "grpc"}); !errors.Is(err, ErrSetting) {
		t.Error(err)
	}
}

func TestReadSettings(t *testing.T) {
	const endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT=http://collector:4318"
	on := settings{spans: true, protocol: protocolHTTP, metrics: true, pushMetrics: true, metricsProtocol: protocolHTTP}
	traces := settings{spans: true, protocol: protocolHTTP}
	metrics := settings{metrics: true, pushMetrics: true, metricsProtocol: protocolHTTP}
	grpc, both, never, off := on, on, on, settings{}
	grpc.protocol, grpc.metricsProtocol = protocolGRPC, protocolGRPC
	both.metricsProtocol = protocolGRPC
	never.never = true
	for _, row := range []struct {
		name string
		env  string // space-separated
		want settings
		bad  string // the variable that the error names
	}{
		{"nothing set", "", off, ""},
		{"endpoint", endpoint, on, ""},
		{"endpoint of traces", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://collector/v1/traces", traces, ""},
		{"exporter alone: default endpoint", "OTEL_TRACES_EXPORTER=otlp", traces, ""},
		{"exporter none", endpoint + " OTEL_TRACES_EXPORTER=none", metrics, ""},
		{"no metrics", endpoint + " OTEL_METRICS_EXPORTER=none", traces, ""},
		{"metrics to be scraped", "OTEL_METRICS_EXPORTER=prometheus", settings{metrics: true}, ""},
		{"metrics of client_golang", "OTEL_METRICS_EXPORTER=prometheus OTEL_METRICS_PRODUCERS=prometheus", settings{metrics: true, bridge: true}, ""},
		{"metrics of another library", endpoint + " OTEL_METRICS_PRODUCERS=statsd", off, "OTEL_METRICS_PRODUCERS"},
		{"traces are not scraped", "OTEL_TRACES_EXPORTER=prometheus", off, "OTEL_TRACES_EXPORTER"},
		{"nothing sampled", endpoint + " OTEL_TRACES_SAMPLER=always_off", never, ""},
		{"sdk disabled", endpoint + " OTEL_SDK_DISABLED=TRUE", off, ""},
		{"sdk not disabled", endpoint + " OTEL_SDK_DISABLED=false", on, ""},
		{"empty is unset", "OTEL_EXPORTER_OTLP_ENDPOINT= OTEL_TRACES_EXPORTER=", off, ""},
		{"grpc", endpoint + " OTEL_EXPORTER_OTLP_PROTOCOL=grpc", grpc, ""},
		{"the signal's protocol wins", endpoint + " OTEL_EXPORTER_OTLP_PROTOCOL=grpc OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=http/protobuf", both, ""},
		{"http/json", endpoint + " OTEL_EXPORTER_OTLP_PROTOCOL=http/json", off, "OTEL_EXPORTER_OTLP_PROTOCOL"},
		{"unknown exporter", "OTEL_TRACES_EXPORTER=zipkin", off, "OTEL_TRACES_EXPORTER"},
		{"endpoint without a scheme", "OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318", off, "OTEL_EXPORTER_OTLP_ENDPOINT"},
		{"endpoint is no url", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://%zz", off, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"},
		{"bad but disabled", "OTEL_TRACES_EXPORTER=zipkin OTEL_SDK_DISABLED=true", off, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			env := make(map[string]string)
			for _, kv := range strings.Fields(row.env) {
				k, v, _ := strings.Cut(kv, "=")
				env[k] = v
			}
			got, err := readSettings(func(k string) string { return env[k] })
			if got != row.want {
				t.Errorf("got %+v, want %+v", got, row.want)
			}
			switch {
			case row.bad == "" && err != nil:
				t.Error(err)
			case row.bad != "" && (!errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), row.bad+"=")):
				t.Errorf("error %v, want ErrSetting with the name %s", err, row.bad)
			}
		})
	}
}
