package otlp

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/coppice-go/coppice/tracing"
)

// The bounds of the two queues; see the package comment for what happens there.
const (
	spanLimit = 2048                   // ended spans that wait in a process
	spanBatch = 256                    // about 60 kB of OTLP
	spanDelay = 200 * time.Millisecond // what a kill -9 loses at most; the SDK's default is 5 s

	payloadLimit = 8 << 20 // bytes that wait in the master
	payloadBatch = 1 << 20 // bytes in one request; collectors take 4 MiB (gRPC's default limit)
)

func init() { tracing.Register(backend{}) }

type backend struct{}

// installed is the pipeline that is OpenTelemetry's global one.
var installed atomic.Pointer[pipeline]

func (backend) Start(ctx context.Context, p tracing.Process, relay func([]byte) error) (tracing.Pipeline, error) {
	s, err := readSettings(os.Getenv)
	if err != nil || !s.on {
		return nil, err
	}
	pl := &pipeline{}
	if relay == nil {
		if pl.client, err = newClient(ctx, s.protocol); err != nil {
			return nil, err
		}
		pl.payloads = newQueue(queueConfig[payload]{
			limit:  payloadLimit,
			batch:  payloadBatch,
			weight: func(p payload) int { return p.size },
			send:   pl.upload,
		})
		relay = func(otlp []byte) error { return pl.Export(context.Background(), otlp) }
	}
	pl.spans = newQueue(queueConfig[sdktrace.ReadOnlySpan]{
		limit:  spanLimit,
		batch:  spanBatch,
		delay:  spanDelay,
		weight: func(sdktrace.ReadOnlySpan) int { return 1 },
		send:   newMarshaller(relay).send,
	})
	// The sampler and the span limits come from the environment, by the SDK.
	pl.provider = sdktrace.NewTracerProvider(
		sdktrace.WithResource(newResource(ctx, p)),
		sdktrace.WithSpanProcessor(processor{pl.spans}),
	)
	if installed.CompareAndSwap(nil, pl) {
		otel.SetTracerProvider(pl.provider)
		otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	}
	return pl, nil
}

// newClient returns the connection to the collector. It does not wait for it.
func newClient(ctx context.Context, protocol string) (otlptrace.Client, error) {
	c := otlptracehttp.NewClient()
	if protocol == protocolGRPC {
		c = otlptracegrpc.NewClient()
	}
	if err := c.Start(ctx); err != nil {
		return nil, fmt.Errorf("tracing/otlp: %w", err)
	}
	return c, nil
}

// pipeline is spans → marshaller → relay in a child, and
// spans → marshaller → Export → payloads → client in the master, where children's
// payloads join at Export.
type pipeline struct {
	provider *sdktrace.TracerProvider
	spans    *queue[sdktrace.ReadOnlySpan]
	payloads *queue[payload]  // nil in a child
	client   otlptrace.Client // nil in a child

	shutdown    sync.Once
	shutdownErr error
}

func (p *pipeline) TracerProvider() trace.TracerProvider { return p.provider }

func (p *pipeline) Export(_ context.Context, otlp []byte) error {
	if p.payloads == nil {
		return tracing.ErrNotExporting
	}
	parts, err := splitPayload(otlp)
	if err != nil {
		return err
	}
	p.payloads.put(payload{parts: parts, size: len(otlp)})
	return nil
}

// upload is the send of the queue of payloads: it makes one request of them.
func (p *pipeline) upload(ctx context.Context, payloads []payload) (lost int, err error) {
	var all []*tracepb.ResourceSpans
	for _, b := range payloads {
		all = append(all, b.parts...)
	}
	if err := p.client.UploadTraces(ctx, all); err != nil {
		return len(payloads), err
	}
	return 0, nil
}

func (p *pipeline) Shutdown(ctx context.Context) error {
	p.shutdown.Do(func() {
		errs := []error{p.provider.Shutdown(ctx)}
		if p.payloads != nil {
			errs = append(errs, p.payloads.close(ctx))
			<-p.payloads.done // the client returns when its context ends
			errs = append(errs, p.client.Stop(ctx))
		}
		installed.CompareAndSwap(p, nil)
		if err := errors.Join(errs...); err != nil {
			p.shutdownErr = fmt.Errorf("tracing/otlp: shutdown: %w", err)
		}
	})
	return p.shutdownErr
}

func (p *pipeline) Stats() tracing.Stats {
	s := tracing.Stats{Spans: p.spans.accepted.Load(), SpansDropped: p.spans.dropped.Load()}
	if p.payloads != nil {
		s.Payloads, s.PayloadsDropped = p.payloads.accepted.Load(), p.payloads.dropped.Load()
	}
	return s
}
