package actors

import (
	"fmt"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/tracing"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// Instrument makes a producer whose actors have a span for each user message that they handle, of
// the kind CONSUMER, under the span with which the message was sent. [Context] in the handler gives
// that span, so that what the handler starts or sends goes under it. A handler that panics or exits
// leaves a failed span. tp is what the program has made, or otel.GetTracerProvider() if package
// tracing/otlp has.
//
//	system.Spawn(ctx, "orders", actors.Instrument(provider, newOrders))
//
// Without it the context of a message crosses all the same, and no span is made.
func Instrument(tp trace.TracerProvider, producer func() actor.Actor) func() actor.Actor {
	tracer := tp.Tracer(tracing.ScopeName, trace.WithSchemaURL(tracing.SchemaURL))
	return func() actor.Actor {
		inner := producer()
		if inner == nil {
			return nil
		}
		a := &instrumented{inner, tracer}
		if s, ok := inner.(actor.SupervisorStrategy); ok {
			return instrumentedStrategy{a, s}
		}
		return a
	}
}

type instrumented struct {
	inner  actor.Actor
	tracer trace.Tracer
}

// instruments returns the actor itself.
func (a *instrumented) instruments() actor.Actor { return original(a.inner) }

// instrumentedStrategy is for an actor that also decides for its children.
type instrumentedStrategy struct {
	*instrumented
	actor.SupervisorStrategy
}

func (a *instrumented) Receive(ctx actor.Context) {
	msg := ctx.Message()
	switch msg.(type) {
	case actor.AutoReceiveMessage, actor.SystemMessage, *actor.Terminated:
		a.inner.Receive(ctx)
		return
	}
	under := Context(ctx)
	_, span := a.tracer.Start(under, tracing.SpanHandle, trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		tracing.KeyActorPath.String(pidString(ctx.Self())), tracing.KeyMessageType.String(fmt.Sprintf("%T", msg))))
	returned := false
	defer func() {
		if !returned { // the panic goes on
			span.SetStatus(codes.Error, "")
			span.SetAttributes(tracing.KeyErrorType.String("panic"))
		}
		span.End()
	}()
	a.inner.Receive(tracedContext{ctx, span})
	returned = true
}

// tracedContext is the context of a message that has a span.
type tracedContext struct {
	actor.Context
	span trace.Span
}
