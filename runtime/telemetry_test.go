package coppice

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/coppice-go/coppice/tracing"
)

// deafCollector is a backend whose collector does not answer: what is not sent is lost when
// its pipeline ends.
type deafCollector struct{ tracing.Backend }

type deafPipeline struct{ tracing.Pipeline }

func (d deafCollector) Start(ctx context.Context, p tracing.ProcessResource, up *tracing.Uplink) (tracing.Pipeline, error) {
	pl, err := d.Backend.Start(ctx, p, up)
	return deafPipeline{pl}, err
}

func (deafPipeline) Shutdown(context.Context) error { return errors.New("the collector is deaf") }

// TestTelemetryLostAtEnd: telemetry that could not be sent when the tree ends is reported, and does
// not make the end fail.
func TestTelemetryLostAtEnd(t *testing.T) {
	tracing.Register(deafCollector{tracing.Own(noop.NewTracerProvider())})
	t.Cleanup(func() { tracing.Register(nil) })
	var b bytes.Buffer
	rt, err := Start(t.Context(), Config{
		Logger:   slog.New(slog.NewTextHandler(&b, nil)),
		Children: []ChildSpec{Func{Name: "f", Run: func(ctx context.Context) error { <-ctx.Done(); return nil }}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if said := b.String(); strings.Count(said, "telemetry was lost at the end of the tree") != 1 || !strings.Contains(said, "the collector is deaf") {
		t.Errorf("the log has %s", said)
	}
}
