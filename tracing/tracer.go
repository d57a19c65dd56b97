package tracing

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Tracer starts Coppice's own spans. A nil *Tracer is off. Its methods may be
// called by any goroutine.
type Tracer struct {
	provider trace.TracerProvider // nil when there is a meter only, and tracer too
	tracer   trace.Tracer
	meter    *Meter
	pools    atomic.Pointer[map[string]*HandoffMeter] // replaced as a whole; see Handoffs
}

// New returns a Tracer on tp. If tp is nil or OpenTelemetry's no-op provider it returns nil,
// which is off.
func New(tp trace.TracerProvider) *Tracer {
	switch tp.(type) {
	case nil, noop.TracerProvider, *noop.TracerProvider:
		return nil
	}
	return &Tracer{
		provider: tp,
		tracer:   tp.Tracer(ScopeName, trace.WithSchemaURL(SchemaURL)),
	}
}

// WithMeter returns t with a meter for hand-offs. Either may be nil; if both are, tracing
// and metrics are off.
func (t *Tracer) WithMeter(m *Meter) *Tracer {
	switch {
	case m == nil:
		return t
	case t == nil:
		return &Tracer{meter: m}
	}
	return &Tracer{provider: t.provider, tracer: t.tracer, meter: m}
}

// AcceptSpan describes a connection that was accepted. Zero fields are left out of the span.
type AcceptSpan struct {
	Listener  string         // name of the listener
	Transport string         // "tcp" or "unix"
	Peer      netip.AddrPort // the client
	At        time.Time      // when accept returned; zero means now
	Before    [Size]byte     // the carrier of its serve span before, if it was parked since: becomes a link
}

// Accept starts the root span of a connection. The sampler decides here, once
// for the whole chain. The caller ends the span when the hand-off is settled.
func (t *Tracer) Accept(a AcceptSpan) Span {
	if t == nil || t.tracer == nil {
		return Span{}
	}
	return t.accept(a)
}

func (t *Tracer) accept(a AcceptSpan) Span {
	var opts []trace.SpanStartOption // a root by its context; each option would cost an allocation
	if !a.At.IsZero() {
		opts = []trace.SpanStartOption{trace.WithTimestamp(a.At)}
	}
	if a.Before != [Size]byte{} {
		if before := Decode(a.Before); before.IsSampled() {
			opts = append(opts, trace.WithLinks(trace.Link{SpanContext: before}))
		}
	}
	_, s := t.tracer.Start(context.Background(), SpanAccept, opts...)
	span := Span{t: t, carrier: Encode(s.SpanContext())}
	if !s.IsRecording() {
		return span
	}
	span.s = s
	if a.Listener != "" {
		s.SetAttributes(KeyListener.String(a.Listener))
	}
	if a.Transport != "" {
		s.SetAttributes(KeyNetworkTransport.String(a.Transport))
	}
	if a.Peer.IsValid() {
		s.SetAttributes(
			KeyPeerAddress.String(a.Peer.Addr().String()),
			KeyPeerPort.Int(int(a.Peer.Port())),
		)
	}
	return span
}

// Claim describes a handle that was received.
type Claim struct {
	Pool string // the receiver's pool
	Kind string // of the handle: conn, listener, packet, file
}

// Claim starts the receiver's span of a hand-off, from the carrier that came with the handle. If
// the carrier holds no context the span is off: a worker begins no trace. The caller ends the span
// before it answers the claim, so that the times of the two processes nest.
func (t *Tracer) Claim(carrier [Size]byte, c Claim) Span {
	if t == nil || t.tracer == nil {
		return Span{}
	}
	return t.claim(carrier, c)
}

func (t *Tracer) claim(carrier [Size]byte, c Claim) Span {
	sc := Decode(carrier)
	if !sc.IsValid() {
		return Span{}
	}
	if !sc.IsSampled() {
		return Span{t: t, carrier: carrier}
	}
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), sc)
	span := t.start(ctx, SpanClaim, trace.SpanKindConsumer)
	if span.s != nil {
		setHandle(span.s, c.Pool, c.Kind)
	}
	return span
}

// start starts a span under the one in ctx. The caller has checked the sampled flag of the
// parent; the sampler may still drop the span.
func (t *Tracer) start(ctx context.Context, name string, kind trace.SpanKind, opts ...trace.SpanStartOption) Span {
	_, s := t.tracer.Start(ctx, name, append(opts, trace.WithSpanKind(kind))...)
	span := Span{t: t, carrier: Encode(s.SpanContext())}
	if s.IsRecording() {
		span.s = s
	}
	return span
}

// setHandle sets the attributes that a hand-off and its claim share.
func setHandle(s trace.Span, pool, kind string) {
	if pool != "" {
		s.SetAttributes(KeyPool.String(pool))
	}
	if kind != "" {
		s.SetAttributes(KeyHandleKind.String(kind))
	}
}
