package coppice

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/coppice-go/coppice/runtime/internal/canary"
	"github.com/coppice-go/coppice/tracing"
)

// A live tree is reloaded and scaled: each is one trace, in which every worker that
// starts or stops for it has its span.
func TestLifeOfATree(t *testing.T) {
	sr := tracetest.NewSpanRecorder()
	tracing.Register(tracing.Own(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(sr))))
	t.Cleanup(func() { tracing.Register(nil) })
	rt, err := Start(t.Context(), Config{
		Children: []ChildSpec{Pool{
			Name: "web", Size: 2, Isolation: GoroutineIsolation,
			Worker: func(ctx context.Context, w *Worker) error {
				if err := w.Ready(); err != nil {
					return err
				}
				<-ctx.Done()
				return nil
			},
		}},
		ListenerIsolation: GoroutineIsolation,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Reload(t.Context()); err != nil {
		t.Error(err)
	}
	for _, size := range []int{3, 1} {
		if err := rt.Scale(t.Context(), "web", size); err != nil {
			t.Error(err)
		}
	}
	if err := rt.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	all := sr.Ended()
	partsOf := func(name string) (parts [][]string) {
		for _, op := range all {
			if op.Name() != name {
				continue
			}
			var own []string
			for _, s := range all {
				if s.Parent().SpanID() == op.SpanContext().SpanID() {
					own = append(own, show(s))
				}
			}
			slices.Sort(own)
			parts = append(parts, own)
		}
		return parts
	}
	want := []string{
		"start listener ready", "start web/0 ready", "start web/1 ready", "stop listener", "stop web/0", "stop web/1",
	}
	if got := partsOf(tracing.SpanReload); len(got) != 1 || !slices.Equal(got[0], want) {
		t.Errorf("the reload consists of %q, want %q", got, want)
	}
	scales := partsOf(tracing.SpanScale)
	if len(scales) != 2 || !slices.Equal(scales[0], []string{"start web/2 ready"}) || len(scales[1]) != 2 {
		t.Errorf("the changes of size consist of %q", scales)
	}
	for _, s := range all {
		if show(s) == "start web/0 ready" && !s.Parent().IsValid() {
			return // at the tree's own start: a root
		}
	}
	t.Error("the start of the tree has no spans")
}

// show is a span on a line: name, path, error, events.
func show(s sdktrace.ReadOnlySpan) string {
	words := []string{s.Name()}
	for _, kv := range s.Attributes() {
		switch kv.Key {
		case tracing.KeyChildPath:
			words = append(words, kv.Value.AsString())
		case tracing.KeyErrorType:
			words = append(words, "failed: "+kv.Value.AsString())
		}
	}
	for _, e := range s.Events() {
		words = append(words, e.Name)
	}
	return strings.Join(words, " ")
}

// TestCanaryAttributes: the span of a canary has both generations in numbers.
func TestCanaryAttributes(t *testing.T) {
	var before, after canary.Side
	before.Requests, before.Failed, after.Requests, after.Failed = 400, 1, 200, 50
	after.Crashes, before.Growth, after.Growth = 2, 1<<20, 9<<20
	before.Latency, after.Latency = []uint64{400}, []uint64{0, 200}
	got := fmt.Sprint(canaryAttributes("back: it crashes", before, after))
	want := `[{"coppice.canary.verdict":"back: it crashes"} {"coppice.canary.crashes":[2,0]} {"coppice.canary.requests":[200,400]}` +
		` {"coppice.canary.failed":[0.25,0.0025]} {"coppice.canary.p99":[1.27e-07,6.3e-08]} {"coppice.canary.memory":[9437184,1048576]}]`
	if got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
