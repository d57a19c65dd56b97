package otlp

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// ErrSetting is what Start answers for a variable that it cannot follow. The
// text names the variable and its value.
var ErrSetting = errors.New("tracing/otlp: bad setting")

const (
	protocolHTTP = "http/protobuf"
	protocolGRPC = "grpc"
)

// settings are what we read of the environment ourselves. The exporter and the
// SDK read the rest.
type settings struct {
	on       bool
	protocol string
}

// readSettings decides whether this process traces, and how the master exports.
// Every process of a tree comes to the same result, since the environment
// reaches each unchanged. An empty variable is an unset one, as OpenTelemetry
// wants it.
func readSettings(getenv func(string) string) (settings, error) {
	if strings.EqualFold(getenv("OTEL_SDK_DISABLED"), "true") {
		return settings{}, nil
	}
	exporter := getenv("OTEL_TRACES_EXPORTER")
	switch exporter {
	case "", "otlp":
	case "none":
		return settings{}, nil
	default:
		return settings{}, badSetting("OTEL_TRACES_EXPORTER", exporter, "want otlp or none")
	}

	endpoint := false
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		v := getenv(name)
		if v == "" {
			continue
		}
		u, err := url.Parse(v)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return settings{}, badSetting(name, v, "want http://host:port or https://host:port")
		}
		endpoint = true
	}
	if !endpoint && exporter == "" {
		return settings{}, nil
	}

	s := settings{on: true, protocol: protocolHTTP}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		switch v := getenv(name); v {
		case "":
		case protocolHTTP, protocolGRPC:
			s.protocol = v
		default:
			return settings{}, badSetting(name, v, "want http/protobuf or grpc")
		}
	}
	return s, nil
}

func badSetting(name, value, want string) error {
	return fmt.Errorf("%w: %s=%q: %s", ErrSetting, name, value, want)
}
