package actors_test

import (
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/supervisor"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// The tree shows of an actor what waits, since when, what was handled, and how
// often it has failed.
func TestStatisticsInTheTree(t *testing.T) {
	since := time.Now() // the time of arrival is that of one of the 15 before
	s := local(t)
	busy, release := make(chan struct{}, 1), make(chan struct{})
	sup, err := supervisor.Start(testContext(t), supervisor.Spec{
		Name: "root", Intensity: supervisor.Intensity{Max: 9, Period: time.Minute},
		Children: []supervisor.ChildSpec{{ID: "a", Start: actors.Child(s, "a", receive(func(ctx actor.Context) {
			switch ctx.Message() {
			case "panic":
				panic("as told")
			case "busy":
				busy <- struct{}{}
				<-release
			default:
				ctx.Respond("x")
			}
		}))}},
	}, supervisor.Config{Logger: s.Logger()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sup.Shutdown(testContext(t)) })
	pid := actor.NewPID("0", "a")
	info := func() actors.ActorInfo {
		v, ok := sup.Snapshot().Children[0].Info.(actors.ActorView)
		if !ok {
			return actors.ActorInfo{} // between two incarnations
		}
		return v.Now()
	}
	for n := range 2 {
		_ = s.Send(t.Context(), pid, "panic")
		settled(t, "the next incarnation", func() bool { return info().Failures == uint64(n+1) })
		settled(t, "it answers", func() bool { v, err := s.Ask(testContext(t), pid, "?"); return err == nil && v == "x" })
	}
	before := s.Actors()[0].Processed // the tree may still show the incarnation before
	_ = s.Send(t.Context(), pid, "busy")
	next(t, busy)
	for range 40 {
		_ = s.Send(t.Context(), pid, "later")
	}
	settled(t, "40 wait", func() bool { i := info(); return i.Queue == 40 && i.Oldest > 0 })
	i := info()
	if i.Processed != before+1 || i.Failures != 2 || i.PID != "0/a" || i.Oldest > time.Since(since) {
		t.Fatalf("%+v", i)
	}
	if list := s.Actors(); len(list) != 1 || list[0].Queue != 40 {
		t.Fatalf("%+v", list)
	}
	close(release)
	settled(t, "all are handled", func() bool { i := info(); return i.Processed == before+41 && i.Queue == 0 && i.Oldest == 0 })
}

// Spans per message only when asked: of the handler's kind, under the sender's
// span, also across processes; what the handler sends goes under it.
func TestInstrument(t *testing.T) {
	rec := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(rec))
	tree := newTree(t, 2)
	a, b := tree.Child(0), tree.Child(1)
	last := spawn(t, a, "last", actors.Instrument(tp, echo))
	plain := spawn(t, b, "plain", receive(func(ctx actor.Context) { // not asked for: no span, but the context goes on
		v, err := b.Ask(actors.Context(ctx), last, "inner")
		if err != nil {
			panic(err)
		}
		ctx.Respond(v)
	}))
	first := spawn(t, b, "first", actors.Instrument(tp, receive(func(ctx actor.Context) {
		if ctx.Message() == "panic" {
			panic("as told")
		}
		v, err := b.Ask(actors.Context(ctx), plain, "middle")
		if err != nil {
			panic(err)
		}
		ctx.Respond(v)
	})))
	ctx, root := tp.Tracer("test").Start(testContext(t), "root")
	if v, err := a.Ask(ctx, first, "outer"); err != nil || v != "inner" {
		t.Fatalf("%v, %v", v, err)
	}
	_, err := a.Ask(ctx, first, "panic")
	wantErr(t, err, actors.ErrDown)
	root.End()
	settled(t, "four spans", func() bool { return len(rec.Ended()) == 4 })
	by := map[string][]sdktrace.ReadOnlySpan{}
	for _, s := range rec.Ended() {
		if s.SpanContext().TraceID() != root.SpanContext().TraceID() {
			t.Errorf("span %s in a trace of its own", s.Name())
		}
		key := s.Name()
		for _, kv := range s.Attributes() {
			if kv.Key == "coppice.actor.path" {
				key = kv.Value.AsString()
			}
		}
		by[key] = append(by[key], s)
	}
	outer, inner := by[b.Address()+"/first"], by[a.Address()+"/last"]
	if len(outer) != 2 || len(inner) != 1 {
		t.Fatalf("spans %v", by)
	}
	if outer[0].Parent().SpanID() != root.SpanContext().SpanID() || inner[0].Parent().SpanID() != outer[0].SpanContext().SpanID() {
		t.Error("a span is not under the one with which its message was sent")
	}
	if outer[0].SpanKind() != trace.SpanKindConsumer || outer[0].Status().Code == codes.Error || outer[1].Status().Code != codes.Error {
		t.Errorf("kind %v, status %v and %v", outer[0].SpanKind(), outer[0].Status(), outer[1].Status())
	}
	if n := len(rec.Started()); n != 4 {
		t.Errorf("%d spans", n)
	}
}
