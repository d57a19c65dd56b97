package otlp

import (
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/coppice-go/coppice/tracing/otlp/internal/clients"
)

// ErrSetting is wrapped by the error of Start for a variable with a value that it cannot use.
// The text names the variable and its value.
var ErrSetting = errors.New("tracing/otlp: bad setting")

const (
	protocolHTTP = "http/protobuf"
	protocolGRPC = "grpc"
)

// settings are the variables that this package reads. The exporters and the SDK read the others.
type settings struct {
	spans    bool
	protocol string
	never    bool // the sampler samples nothing

	metrics         bool
	pushMetrics     bool // by OTLP; else metrics are scraped only
	metricsProtocol string
	bridge          bool // client_golang's default registry is collected, too
}

// readSettings decides what this process does, and how the master exports. All processes of
// a tree have the same environment and so the same result. An empty variable counts as unset,
// as OpenTelemetry demands.
func readSettings(getenv func(string) string) (settings, error) {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return settings{}, nil
	}
	var s settings
	var err error
	if s.spans, s.protocol, err = readSignal(getenv, "TRACES"); err != nil {
		return settings{}, err
	}
	if s.pushMetrics, s.metricsProtocol, err = readSignal(getenv, "METRICS"); err != nil {
		return settings{}, err
	}
	s.metrics = s.pushMetrics || getenv("OTEL_METRICS_EXPORTER") == exporterPrometheus
	switch v := getenv("OTEL_METRICS_PRODUCERS"); v {
	case "", "none":
	case exporterPrometheus:
		s.bridge = true
	default:
		return settings{}, badSetting("OTEL_METRICS_PRODUCERS", v, "want prometheus or none")
	}
	if sampler := getenv("OTEL_TRACES_SAMPLER"); sampler == "always_off" || sampler == "parentbased_always_off" {
		s.never = true
	}
	return s, nil
}

const exporterPrometheus = "prometheus"

// readSignal reports whether a signal is exported by OTLP, and by which protocol.
func readSignal(getenv func(string) string, signal string) (on bool, protocol string, err error) {
	name := "OTEL_" + signal + "_EXPORTER"
	exporter := getenv(name)
	switch {
	case exporter == "", exporter == "otlp":
	case exporter == "none", exporter == exporterPrometheus && signal == "METRICS":
		return false, "", nil
	default:
		return false, "", badSetting(name, exporter, "want otlp or none, or for metrics prometheus")
	}

	endpoint := false
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_" + signal + "_ENDPOINT"} {
		v := getenv(name)
		if v == "" {
			continue
		}
		u, err := url.Parse(v)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return false, "", badSetting(name, v, "want http://host:port or https://host:port")
		}
		endpoint = true
	}
	if !endpoint && exporter == "" {
		return false, "", nil
	}

	protocol = protocolHTTP
	from := "" // the variable that says so
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_" + signal + "_PROTOCOL"} {
		switch v := getenv(name); v {
		case "":
		case protocolHTTP, protocolGRPC:
			protocol, from = v, name
		default:
			return false, "", badSetting(name, v, "want http/protobuf or grpc")
		}
	}
	if protocol == protocolGRPC && clients.GRPC == nil {
		return false, "", badSetting(from, protocol, `the program does not import _ "github.com/coppice-go/coppice/tracing/otlp/otlpgrpc"`)
	}
	return true, protocol, nil
}

func badSetting(name, value, want string) error {
	return fmt.Errorf("%w: %s=%q: %s", ErrSetting, name, value, want)
}
