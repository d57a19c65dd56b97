package tracing_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"

	"github.com/coppice-go/coppice/tracing"
)

func TestLogHandler(t *testing.T) {
	tp, _ := recorder(t)
	span := tracing.New(tp).Accept(tracing.Accepted{})
	var b bytes.Buffer
	log := slog.New(tracing.LogHandler(slog.NewJSONHandler(&b, nil))).With("a", 1)
	log.InfoContext(tracing.ContextWithSpan(t.Context(), span), "in a trace")
	log.WithGroup("g").InfoContext(t.Context(), "in none", "k", 2)
	var in, out map[string]any
	d := json.NewDecoder(&b)
	if err := d.Decode(&in); err != nil {
		t.Fatal(err)
	}
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	if in["trace_id"] != span.Context().TraceID().String() || in["span_id"] != span.Context().SpanID().String() || in["a"] != 1.0 {
		t.Errorf("in a trace: %v", in)
	}
	if _, ok := out["trace_id"]; ok || out["a"] != 1.0 {
		t.Errorf("in none: %v", out)
	}
}
