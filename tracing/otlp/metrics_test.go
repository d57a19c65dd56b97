package otlp

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/coppice-go/coppice/tracing"
	"github.com/coppice-go/coppice/tracing/otlp/otlptest"
)

// what returns the value of a metric that arrived, and its point.
func what(metrics []otlptest.Metric, name, label string) (found otlptest.Metric) {
	for _, m := range metrics {
		if m.Name == name && (label == "" || strings.Contains(fmt.Sprint(m.Attributes), label)) {
			return m
		}
	}
	return found
}

// Two workers and the master count; one worker ends. Sums stay, levels go; OTLP and
// a scrape say the same.
func TestSumsOverProcesses(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	master := start(t, masterProcess, nil)
	sampled := tracing.New(master.TracerProvider()).Accept(tracing.AcceptSpan{})
	var ended tracing.ChildTelemetry
	for i := range 2 {
		c := master.Adopt(workerProcess)
		worker := start(t, workerProcess, uplink(c))
		m := worker.Meter()
		m.Counter(tracing.TransportBytes, tracing.KeyDirection.String("receive")).Add(100)
		m.Counter(tracing.MailboxDepth).Add(7)
		m.Histogram(tracing.HandoffDuration, tracing.KeyPool.String("web")).Record(3*time.Millisecond, sampled)
		shutdown(t, worker) // sends a last time
		if i == 0 {
			ended = c
		}
	}
	master.Meter().Counter(tracing.TransportBytes, tracing.KeyDirection.String("receive")).Add(1000)
	ended.Ended(killed)
	ended.Ended(killed)
	late := metricOf(tracing.TransportBytes)
	late.points = []dataPoint{{n: 5}}
	payloads, err := writeMetrics([]metric{late}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := ended.Receive(tracing.Metrics, payloads[0]); err != nil {
		t.Error(err) // late, and too late
	}

	scrape := func(accept string) string {
		w, req := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
		req.Header.Set("Accept", accept)
		PrometheusHandler().ServeHTTP(w, req)
		return w.Body.String()
	}
	for _, want := range []string{
		`coppice_transport_io_bytes_total{network_io_direction="receive"} 1200`,
		"coppice_actor_mailbox_depth 7",
		`coppice_handoff_duration_seconds_count{coppice_pool_name="web"} 2`,
		`coppice_handoff_duration_seconds_bucket{coppice_pool_name="web",le="0.0025"} 0`,
		`coppice_handoff_duration_seconds_bucket{coppice_pool_name="web",le="0.005"} 2`,
		"# TYPE coppice_transport_io_bytes_total counter",
	} {
		if got := scrape("text/plain"); !strings.Contains(got, want) {
			t.Errorf("a scrape lacks %s\n%s", want, got)
		}
	}
	if got := scrape("application/openmetrics-text; version=1.0.0"); !strings.Contains(got, `trace_id="`+sampled.Context().TraceID().String()+`"`) {
		t.Errorf("a scrape without its exemplar:\n%s", got)
	}
	shutdown(t, master)
	got := r.Metrics()
	if m := what(got, "coppice.transport.io", "receive"); m.Value != 1200 || !m.Monotonic || m.Unit != "By" {
		t.Errorf("by OTLP: %+v", m)
	}
	if m := what(got, "coppice.actor.mailbox.depth", ""); m.Value != 7 || m.Monotonic {
		t.Errorf("by OTLP: %+v", m)
	}
	if m := what(got, "coppice.handoff.duration", "web"); m.Count != 2 || m.Value != 0.006 || len(m.Exemplars) == 0 || m.Unit != "s" {
		t.Errorf("by OTLP: %+v", m)
	}
	w := httptest.NewRecorder()
	PrometheusHandler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 503 || !strings.Contains(w.Body.String(), "OTEL_METRICS_EXPORTER=prometheus") {
		t.Errorf("a scrape without a tree: %d", w.Code)
	}
}

// What a child says of Coppice's own instruments is refused unless it has their shape. An
// instrument of another release is left out.
func TestCoppiceMetricsOutOfBounds(t *testing.T) {
	of := func(i *tracing.Instrument, p dataPoint) metric {
		m := metricOf(i)
		m.points = []dataPoint{p}
		return m
	}
	otherKind := of(tracing.Exits, dataPoint{n: 1})
	otherKind.kind = gauge
	unknown := of(tracing.Exits, dataPoint{n: 1})
	unknown.name = "coppice.of.another.release"
	otherScope := of(tracing.Exits, dataPoint{n: 1})
	otherScope.scope.name = "shop"
	buckets := make([]uint64, len(tracing.Bounds)+1)
	read := func(m metric) ([]metric, error) {
		payloads, err := writeMetrics([]metric{m}, 1)
		if err != nil {
			t.Fatal(err)
		}
		_, metrics, err := readMetrics(payloads[0])
		return metrics, err
	}
	for name, m := range map[string]metric{
		"another kind":        otherKind,
		"another scope":       otherScope,
		"too few buckets":     of(tracing.HandoffDuration, dataPoint{bounds: tracing.Bounds, buckets: []uint64{1}}),
		"other buckets":       of(tracing.HandoffDuration, dataPoint{bounds: []float64{1}, buckets: []uint64{1, 2}}),
		"another's buckets":   of(tracing.JobRuns, dataPoint{bounds: tracing.Bounds, buckets: buckets}),
		"a long label":        of(tracing.Exits, dataPoint{labels: attribute.NewSet(attribute.String("k", strings.Repeat("v", maxAttributeText+1)))}),
		"a sum below nothing": of(tracing.Exits, dataPoint{n: -1}),
		"more exemplars than it has buckets": of(tracing.HandoffDuration, dataPoint{
			bounds: tracing.Bounds, buckets: buckets,
			exemplars: slices.Repeat([]metricdata.Exemplar[float64]{{TraceID: make([]byte, 16), SpanID: make([]byte, 8)}}, len(buckets)+1),
		}),
	} {
		if _, err := read(m); !errors.Is(err, tracing.ErrPayload) {
			t.Errorf("%s: %v, want ErrPayload", name, err)
		}
	}
	if got, err := read(unknown); err != nil || len(got) != 0 {
		t.Errorf("an unknown instrument: %v, %v", got, err)
	}
	renamed := of(tracing.Exits, dataPoint{n: 1})
	renamed.unit, renamed.description, renamed.scope.schema = "{end}", "Another text.", "https://example.com"
	if got, err := read(renamed); err != nil || len(got) != 1 || got[0].instrument != metricOf(tracing.Exits).instrument {
		t.Errorf("an instrument with other words: %v, %v", got, err)
	}
}

// Set-up by code: it stands before the environment, and is refused as a whole.
func TestUse(t *testing.T) {
	r := otlptest.NewReceiver(t)
	t.Setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_SERVICE_NAME", "environment")
	t.Cleanup(func() { configured.Store(nil) })
	half := 1.0
	for name, cfg := range map[string]Config{
		"OTEL_EXPORTER_OTLP_PROTOCOL": {Protocol: "http/json"},
		"OTEL_METRICS_EXPORTER":       {Metrics: "statsd"},
		"SampleRatio":                 {SampleRatio: func() *float64 { r := 1.5; return &r }()},
	} {
		if err := Use(cfg); !errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want ErrSetting", name, err)
		}
	}
	if configured.Load() != nil {
		t.Error("a set-up that was refused is kept")
	}
	if err := Use(Config{
		Endpoint: r.URL(), ServiceName: "code", SampleRatio: &half, Headers: map[string]string{"x-key": "k"}, Metrics: "none",
	}); err != nil {
		t.Fatal(err)
	}
	master, listener, worker := tree(t)
	serveOne(listener, worker)
	for _, pl := range []tracing.Pipeline{worker, listener, master} {
		shutdown(t, pl)
	}
	traces := r.Traces()
	if len(traces) != 1 || whole(traces[0]) != nil {
		t.Fatalf("arrived: %v", traces)
	}
	if got := traces[0].Spans[0].Resource["service.name"]; got != "code" {
		t.Errorf("service %q", got)
	}
	for _, h := range r.Requests() {
		if h.Get("X-Key") != "k" {
			t.Errorf("a request without the header: %v", h)
		}
	}
	if master.Meter() != nil || r.Metrics() != nil {
		t.Error("metrics are on")
	}
}

// The spans of processes' lives are sampled whatever the ratio is, unless nothing is.
func TestLifeIsSampled(t *testing.T) {
	for _, row := range []struct {
		sampler, arg string
		want         int
	}{
		{"parentbased_traceidratio", "0", 1},
		{"always_off", "", 0},
	} {
		r := otlptest.NewReceiver(t)
		r.Setenv(t)
		t.Setenv("OTEL_TRACES_SAMPLER", row.sampler)
		t.Setenv("OTEL_TRACES_SAMPLER_ARG", row.arg)
		master := start(t, masterProcess, nil)
		tracing.New(master.LifeProvider()).Begin(tracing.SpanRestart, tracing.LifecycleSpan{Path: "web/0"}).End()
		tracing.New(master.TracerProvider()).Accept(tracing.AcceptSpan{}).End()
		shutdown(t, master)
		if got := len(r.Traces()); got != row.want {
			t.Errorf("%s %s: %d traces, want %d", row.sampler, row.arg, got, row.want)
		}
	}
}
