package tracing_test

import (
	"context"
	"fmt"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/coppice-go/coppice/tracing"
)

// The way of a connection: accepted in the listener, served in a worker.
func Example() {
	ended := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(ended), sdktrace.WithSampler(sdktrace.AlwaysSample()))
	tracer := tracing.New(provider) // in each process, from its pipeline

	// In the listener.
	accept := tracer.Accept(tracing.AcceptSpan{Listener: "http", Transport: "tcp"})
	handoff := accept.Handoff(tracing.Handoff{Pool: "web", Target: "web/0", Kind: "conn"})
	carrier := handoff.Carrier() // goes with the handle

	// In the worker.
	claim := tracer.Claim(carrier, tracing.Claim{Pool: "web", Kind: "conn"})
	serve := claim.Serve()
	claim.End()

	// In the listener, once it hears of the claim.
	handoff.EndOutcome(time.Time{}, tracing.Claimed, "")
	accept.End()

	serve.End()
	for _, s := range ended.Ended() {
		fmt.Println(s.Name(), s.SpanKind(), s.SpanContext().TraceID() == accept.Context().TraceID())
	}
	// Output:
	// claim consumer true
	// hand-off producer true
	// accept internal true
	// serve internal true
}

// A program with a TracerProvider of its own gives it to Coppice before the tree is
// started, in every process, and shuts it down itself.
func ExampleOwn() {
	ended := tracetest.NewSpanRecorder() // or an exporter
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(ended))
	tracing.Register(tracing.Own(provider))
	defer tracing.Register(nil)

	// What the runtime does in each process.
	pipeline, err := tracing.Start(context.Background(), tracing.ProcessResource{Role: "listener", Name: "listener"}, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	tracing.New(pipeline.TracerProvider()).Accept(tracing.AcceptSpan{Listener: "http"}).End()
	fmt.Println(pipeline.Shutdown(context.Background()), ended.Ended()[0].Name())
	// Output: <nil> accept
}
