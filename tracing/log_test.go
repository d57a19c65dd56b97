package tracing_test

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"reflect"
	"testing"
	"testing/slogtest"

	"github.com/coppice-go/coppice/tracing"
)

func TestLogHandler(t *testing.T) {
	tp, _ := recorder(t)
	span := tracing.New(tp).Accept(tracing.AcceptSpan{})
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

// The ids stand outside of the groups that a logger has opened.
func TestLogHandlerInGroups(t *testing.T) {
	tp, _ := recorder(t)
	span := tracing.New(tp).Accept(tracing.AcceptSpan{})
	ctx := tracing.ContextWithSpan(t.Context(), span)
	var b bytes.Buffer
	plain := slog.New(slog.NewJSONHandler(&b, nil))
	log := slog.New(tracing.LogHandler(plain.Handler()))
	for _, with := range []func(*slog.Logger) *slog.Logger{
		func(l *slog.Logger) *slog.Logger { return l },
		func(l *slog.Logger) *slog.Logger { return l.With("a", 1) },
		func(l *slog.Logger) *slog.Logger { return l.With("a", 1).WithGroup("g").With("b", 2) },
		func(l *slog.Logger) *slog.Logger { return l.WithGroup("g").WithGroup("").WithGroup("h").With("b", 2) },
	} {
		line := func(l *slog.Logger) (m map[string]any) {
			b.Reset()
			with(l).InfoContext(ctx, "m", "k", 3)
			if err := json.Unmarshal(b.Bytes(), &m); err != nil {
				t.Fatal(err)
			}
			delete(m, "time")
			return m
		}
		got, want := line(log), line(plain)
		if got["trace_id"] != span.Context().TraceID().String() || got["span_id"] != span.Context().SpanID().String() {
			t.Errorf("no ids in %v", got)
		}
		delete(got, "trace_id")
		delete(got, "span_id")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("beside the ids: %v, want %v", got, want)
		}
	}
}

// A handler keeps the rules of slog.
func TestLogHandlerAsAHandler(t *testing.T) {
	var b bytes.Buffer
	err := slogtest.TestHandler(tracing.LogHandler(slog.NewJSONHandler(&b, nil)), func() (all []map[string]any) {
		for line := range bytes.Lines(b.Bytes()) {
			var m map[string]any
			if err := json.Unmarshal(line, &m); err != nil {
				t.Fatal(err)
			}
			all = append(all, m)
		}
		return all
	})
	if err != nil {
		t.Error(err)
	}
}
