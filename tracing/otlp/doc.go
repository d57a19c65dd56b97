// Package otlp exports Coppice's traces, and those of the program, by OTLP. A
// program that wants this imports it for its effect:
//
//	import _ "github.com/coppice-go/coppice/tracing/otlp"
//
// and is set up by OpenTelemetry's environment variables:
//
//	OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 ./service
//
// # Settings
//
// Tracing is on when OTEL_EXPORTER_OTLP_ENDPOINT or
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, or OTEL_TRACES_EXPORTER=otlp, which
// then means the default endpoint. It is off otherwise, and also with
// OTEL_TRACES_EXPORTER=none or OTEL_SDK_DISABLED=true.
//
// OTEL_EXPORTER_OTLP_PROTOCOL (or …_TRACES_PROTOCOL) is http/protobuf, the
// default, or grpc. All other OTEL_EXPORTER_OTLP_* variables (headers,
// certificates, compression, timeout), OTEL_TRACES_SAMPLER and its argument, the
// span limits, OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES mean what
// OpenTelemetry says. Not supported: http/json, other exporters than otlp,
// OTEL_BSP_* (the queue is ours), OTEL_PROPAGATORS.
//
// Metrics follow the same variables with METRICS in TRACES' place;
// OTEL_METRICS_EXPORTER may be prometheus, too: then they are only scraped, see
// [PrometheusHandler]. [Use] sets all this up by code.
//
// # What happens in a process
//
// The first pipeline of a process becomes OpenTelemetry's global TracerProvider,
// with the propagators tracecontext and baggage, and its global MeterProvider, so that
// a worker's own instrumentation needs no set-up.
//
// Only the master has a connection to the collector. A child marshals what has
// ended and hands it to the master, which forwards the bytes as they are: it
// looks at their outermost framing and at nothing else. What a child counts, by
// Coppice's instruments and by the program's own, it sends whole, every second; the
// master adds up, and keeps the sums of those that have ended. docs/adr/0052 has the
// rules.
//
// # A child that dies
//
// A child notes each sampled span in memory that it shares with the master, when
// it starts and when it ends. When the child is gone the master exports what it had
// finished and not sent, and ends what it had open with an error and the exit
// reason. docs/adr/0051 says how, and what is lost all the same.
//
// # Bounds
//
// Ended spans wait in a queue of 2048, and leave it after 200 ms or when 256 are
// there. 4096 spans of a child are noted at once. Payloads wait in the master in a
// queue of 8 MiB. Of a process's own instruments the master keeps 4096 series. What finds a queue full, what the relay or the collector refuses,
// and what is left when Shutdown's context ends is dropped and counted
// ([tracing.PipelineStats]). Nothing that a program does with a span ever waits for any of
// this. The first failure in a row is reported to OpenTelemetry's error handler.
package otlp
