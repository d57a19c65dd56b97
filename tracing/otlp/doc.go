// Package otlp exports the traces and metrics of Coppice and of the program by OTLP. A
// program imports it for its effect:
//
//	import _ "github.com/coppice-go/coppice/tracing/otlp"
//
// and is set up by OpenTelemetry's environment variables:
//
//	OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 ./service
//
// # Settings
//
// Tracing is on if OTEL_EXPORTER_OTLP_ENDPOINT or OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set,
// or OTEL_TRACES_EXPORTER=otlp, which then means the default endpoint. It is off otherwise,
// and with OTEL_TRACES_EXPORTER=none or OTEL_SDK_DISABLED=true.
//
// OTEL_EXPORTER_OTLP_PROTOCOL (or …_TRACES_PROTOCOL) is http/protobuf, the default, or grpc, for
// which the program imports package otlpgrpc too; without it grpc is an error that says so. All
// other OTEL_EXPORTER_OTLP_* variables (headers, certificates, compression, timeout),
// OTEL_TRACES_SAMPLER and its argument, the span limits, OTEL_SERVICE_NAME and
// OTEL_RESOURCE_ATTRIBUTES mean what OpenTelemetry says. Not supported: http/json, other exporters
// than otlp, OTEL_BSP_* (the queue is this package's), OTEL_PROPAGATORS.
//
// Metrics follow the same variables with METRICS in place of TRACES. With
// OTEL_METRICS_EXPORTER=prometheus they are scraped only, see [PrometheusHandler]. With
// OTEL_METRICS_PRODUCERS=prometheus those of client_golang's default registry are added. [Use]
// sets all this up by code.
//
// # What happens in a process
//
// The first pipeline of a process becomes OpenTelemetry's global TracerProvider, with the
// propagators tracecontext and baggage, and its global MeterProvider. So a worker's instrumentation
// needs no set-up. Only the master has a connection to the collector: children send it their ended
// spans, as bytes that it forwards unchanged, and every second the whole of what their instruments
// have counted, which it adds up (docs/adr/0052). docs/adr/0050 says what the spans of a killed
// child become.
//
// # Bounds
//
// Ended spans wait in a queue of 2048, and leave it after 200 ms or when there are 256. The
// shared memory has room for 4096 spans of a child at a time. Payloads wait in the master in
// a queue of 8 MiB. The master keeps 4096 series of a process. Spans and payloads are dropped
// and counted ([tracing.PipelineStats]) when a queue is full, when the master or the collector
// refuses them, and when Shutdown's context ends. Spans never make a program wait. The first
// failure in a row is reported to OpenTelemetry's error handler.
package otlp
