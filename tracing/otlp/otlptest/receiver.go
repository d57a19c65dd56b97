// Package otlptest is an OTLP/HTTP receiver for tests, in the test's process.
//
//	r := otlptest.NewReceiver(t)
//	r.Setenv(t) // or give r.Environ() to a process
//	…
//	trace := r.Wait(t, 10*time.Second, func(tr otlptest.Trace) error {
//		return tr.Has("accept", "hand-off", "serve")
//	})
package otlptest

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// maxBody bounds a request, in bytes after decompression.
const maxBody = 64 << 20

// Receiver collects spans, and the newest metrics. Its methods may be called by any goroutine.
type Receiver struct {
	server *httptest.Server

	mu       sync.Mutex
	traces   []Trace // in the order of their first span's arrival
	metrics  []Metric
	requests []http.Header
	bad      []error
	changed  chan struct{} // closed and replaced whenever something arrives
}

// NewReceiver starts a receiver on a free port of the loopback interface. It is
// closed when the test ends.
func NewReceiver(tb testing.TB) *Receiver {
	r := &Receiver{changed: make(chan struct{})}
	r.server = httptest.NewServer(http.HandlerFunc(r.serve))
	tb.Cleanup(r.server.Close)
	return r
}

// URL returns the base address, as for OTEL_EXPORTER_OTLP_ENDPOINT.
func (r *Receiver) URL() string { return r.server.URL }

// Environ returns the variables that make a process export to r every span,
// whatever the environment of the test says.
func (r *Receiver) Environ() []string {
	return []string{
		"OTEL_EXPORTER_OTLP_ENDPOINT=" + r.URL(),
		"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=",
		"OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
		"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL=",
		"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=",
		"OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=",
		"OTEL_METRICS_EXPORTER=otlp",
		"OTEL_TRACES_EXPORTER=otlp",
		"OTEL_TRACES_SAMPLER=always_on",
		"OTEL_SDK_DISABLED=",
	}
}

// Setenv sets the variables of Environ for the rest of the test.
func (r *Receiver) Setenv(tb testing.TB) {
	for _, kv := range r.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		tb.Setenv(k, v)
	}
}

// Traces returns what has arrived so far.
func (r *Receiver) Traces() []Trace {
	traces, _ := r.state()
	return traces
}

// Metrics returns the points of the newest request of metrics.
func (r *Receiver) Metrics() []Metric {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.metrics)
}

// Requests returns the headers of the requests of spans so far.
func (r *Receiver) Requests() []http.Header {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.requests)
}

// Wait returns the first trace for which ok returns nil. Spans of a trace arrive in several
// requests: ok is asked again whenever something has arrived. After d the test fails at once, with
// what ok said last of each trace. Call it from the test's goroutine.
func (r *Receiver) Wait(tb testing.TB, d time.Duration, ok func(Trace) error) Trace {
	tb.Helper()
	deadline := time.NewTimer(d)
	defer deadline.Stop()
	for {
		traces, changed := r.state()
		var errs []error
		for _, tr := range traces {
			err := ok(tr)
			if err == nil {
				return tr
			}
			errs = append(errs, fmt.Errorf("%w\n%v", err, tr))
		}
		select {
		case <-changed:
		case <-deadline.C:
			r.mu.Lock()
			errs = append(errs, r.bad...)
			n := len(r.requests)
			r.mu.Unlock()
			tb.Fatalf("no such trace after %v: %d requests, %d traces\n%v", d, n, len(traces), errors.Join(errs...))
		}
	}
}

// state returns a copy of the traces, and a channel that is closed when it is out of date.
func (r *Receiver) state() ([]Trace, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	traces := slices.Clone(r.traces)
	for i := range traces {
		traces[i].Spans = slices.Clone(traces[i].Spans)
	}
	return traces, r.changed
}

func (r *Receiver) serve(w http.ResponseWriter, req *http.Request) {
	b, err := body(req)
	var spans []ReceivedSpan
	var metrics []Metric
	switch {
	case err != nil:
	case req.URL.Path == "/v1/traces":
		spans, err = Decode(b)
	case req.URL.Path == "/v1/metrics":
		metrics, err = DecodeMetrics(b)
	}
	r.mu.Lock()
	if metrics != nil {
		r.metrics = metrics
	} else {
		r.requests = append(r.requests, req.Header.Clone())
	}
	if err != nil {
		r.bad = append(r.bad, err)
	}
	for _, s := range spans {
		i := slices.IndexFunc(r.traces, func(t Trace) bool { return t.ID == s.TraceID })
		if i < 0 {
			i = len(r.traces)
			r.traces = append(r.traces, Trace{ID: s.TraceID})
		}
		r.traces[i].Spans = append(r.traces[i].Spans, s)
	}
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()

	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/x-protobuf") // an empty ExportTraceServiceResponse is no bytes
}

func body(req *http.Request) ([]byte, error) {
	if req.Method != http.MethodPost || req.URL.Path != "/v1/traces" && req.URL.Path != "/v1/metrics" {
		return nil, fmt.Errorf("otlptest: %s %s, want POST /v1/traces or /v1/metrics", req.Method, req.URL.Path)
	}
	if ct := req.Header.Get("Content-Type"); ct != "application/x-protobuf" {
		return nil, fmt.Errorf("otlptest: Content-Type %q, want application/x-protobuf", ct)
	}
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			return nil, fmt.Errorf("otlptest: %w", err)
		}
		body = z
	}
	b, err := io.ReadAll(io.LimitReader(body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("otlptest: %w", err)
	}
	return b, nil
}

// Decode decodes a TracesData message, which has the bytes of the request of an OTLP exporter.
func Decode(otlp []byte) ([]ReceivedSpan, error) {
	var data tracepb.TracesData
	if err := proto.Unmarshal(otlp, &data); err != nil {
		return nil, fmt.Errorf("otlptest: %w", err)
	}
	var spans []ReceivedSpan
	for _, rs := range data.ResourceSpans {
		resource := attributes(rs.Resource.GetAttributes())
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				spans = append(spans, newSpan(s, ss.Scope.GetName(), resource))
			}
		}
	}
	return spans, nil
}
