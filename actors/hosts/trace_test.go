package hosts_test

import (
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/coppice-go/coppice/actors"
)

// TestTraceOverHosts: an ask that goes over a host to a third is one trace, each handler's span
// under that of its sender.
func TestTraceOverHosts(t *testing.T) {
	rec := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec))
	c := newCluster(t, time.Minute, "a", "b", "c")
	from, over, to := c.hosts["a"].child("a"), c.hosts["b"].child("b"), c.hosts["c"].child("c")
	handle := func(p *child, f func(ctx actor.Context)) *actor.PID {
		pid, err := p.Spawn(t.Context(), "traced", actors.Instrument(tp, func() actor.Actor {
			return actor.ReceiveFunc(func(ctx actor.Context) {
				if _, ok := ctx.Message().(string); ok {
					f(ctx)
				}
			})
		}))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	last := handle(to, func(ctx actor.Context) { ctx.Respond(ctx.Message()) })
	first := handle(over, func(ctx actor.Context) {
		if v, err := over.Ask(actors.Context(ctx), last, ctx.Message()); err == nil {
			ctx.Respond(v)
		}
	})
	answers(t, from.System, last) // there are trunks
	answers(t, over.System, last)
	answers(t, from.System, first)
	ctx, root := tp.Tracer("test").Start(t.Context(), "root")
	if v, err := from.Ask(ctx, first, "traced"); err != nil || v != "traced" {
		t.Fatalf("%v, %v", v, err)
	}
	root.End()
	var of []sdktrace.ReadOnlySpan
	until(t, "three spans", func() bool {
		of = nil
		for _, s := range rec.Ended() {
			if s.SpanContext().TraceID() == root.SpanContext().TraceID() {
				of = append(of, s)
			}
		}
		return len(of) == 3
	})
	parent := make(map[string]string) // by span
	for _, s := range of {
		parent[s.SpanContext().SpanID().String()] = s.Parent().SpanID().String()
	}
	under := 0
	for _, p := range parent {
		if _, ok := parent[p]; ok {
			under++
		}
	}
	if top := root.SpanContext().SpanID().String(); under != 2 || parent[parent[of[0].SpanContext().SpanID().String()]] != top {
		t.Errorf("spans under each other: %v, root %s", parent, top)
	}
}
