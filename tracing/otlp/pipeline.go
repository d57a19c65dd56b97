package otlp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/coppice-go/coppice/tracing"
	"github.com/coppice-go/coppice/tracing/otlp/internal/clients"
)

// The bounds of the two queues; the package comment says what happens at them.
const (
	spanLimit = 2048                   // ended spans that wait in a process
	spanBatch = 256                    // about 60 kB of OTLP
	spanDelay = 200 * time.Millisecond // the SDK's default is 5 s

	payloadLimit = 8 << 20 // bytes that wait in the master
	payloadBatch = 1 << 20 // bytes in one request; collectors take 4 MiB (gRPC's default limit)
)

func init() { tracing.Register(otlpBackend{}) }

type otlpBackend struct{}

// installed is the pipeline whose providers are OpenTelemetry's global ones.
var installed atomic.Pointer[pipeline]

// configured is the Config given to Use; nil: the environment alone decides.
var configured atomic.Pointer[Config]

// currentConfig returns the Config given to Use, or the zero value.
func currentConfig() Config {
	if c := configured.Load(); c != nil {
		return *c
	}
	return Config{}
}

func (otlpBackend) Start(ctx context.Context, p tracing.ProcessResource, up *tracing.Uplink) (tracing.Pipeline, error) {
	cfg := currentConfig()
	s, err := readSettings(cfg.getenv)
	if err != nil || !s.spans && !s.metrics {
		if up != nil && up.Table != nil {
			_ = up.Table.Close()
		}
		return nil, err
	}
	pl := &pipeline{provider: noop.NewTracerProvider(), life: noop.NewTracerProvider()}
	if s.metrics {
		pl.meter = tracing.NewMeter()
		pl.meter.Watch(pl.watch)
	}
	if s.spans {
		err = pl.startSpans(ctx, cfg, s, p, up)
	}
	if err == nil && s.metrics {
		err = pl.startMetrics(ctx, cfg, s, p, up)
	}
	if err != nil {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		return nil, errors.Join(err, pl.Shutdown(bounded))
	}
	if installed.CompareAndSwap(nil, pl) {
		if pl.sdk != nil {
			otel.SetTracerProvider(pl.sdk)
		}
		if pl.programMeters != nil {
			otel.SetMeterProvider(pl.programMeters)
		}
		otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	}
	return pl, nil
}

// startSpans sets up what spans pass.
func (p *pipeline) startSpans(ctx context.Context, cfg Config, s settings, process tracing.ProcessResource, up *tracing.Uplink) error {
	relay := func(otlp []byte) error { return p.export(otlp) }
	if up == nil {
		client, err := newClient(ctx, cfg, s.protocol)
		if err != nil {
			return err
		}
		p.client = client
		p.payloads = newQueue(queueConfig[payload]{
			limit:  payloadLimit,
			batch:  payloadBatch,
			weight: func(p payload) int { return p.size },
			send:   p.upload,
		})
	} else {
		relay = func(otlp []byte) error {
			if len(otlp) > frameMax {
				return fmt.Errorf("tracing/otlp: a span of %d bytes is lost: its master takes %d at most (OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT)", len(otlp), frameMax)
			}
			return up.Send(tracing.Spans, otlp)
		}
		if up.Table != nil {
			if mem, err := openTable(up.Table); err != nil {
				otel.Handle(fmt.Errorf("tracing/otlp: the table of open spans: %w", err))
			} else {
				p.table = newSpanTable(mem)
			}
		}
	}
	m := newMarshaller(relay)
	m.table = p.table
	p.spans = newQueue(queueConfig[endedSpan]{
		limit:  spanLimit,
		batch:  spanBatch,
		delay:  spanDelay,
		weight: func(endedSpan) int { return 1 },
		send:   m.send,
	})
	// The span limits come from the environment, by the SDK; the sampler too,
	// unless the program names one.
	proc := processor{spans: p.spans, payloads: p.payloads, table: p.table}
	opts := []sdktrace.TracerProviderOption{
		sdktrace.WithResource(newResource(ctx, cfg, process, os.Getpid())),
		sdktrace.WithSpanProcessor(proc),
	}
	if cfg.SampleRatio != nil {
		opts = append(opts, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(*cfg.SampleRatio))))
	}
	p.sdk = sdktrace.NewTracerProvider(opts...)
	p.provider, p.life = p.sdk, p.sdk
	if up == nil && !s.never {
		p.life = sdktrace.NewTracerProvider(append(opts, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())))...)
	}
	return nil
}

// newClient returns a client of the collector. It does not wait for the connection.
func newClient(ctx context.Context, cfg Config, protocol string) (otlptrace.Client, error) {
	var c otlptrace.Client
	if protocol == protocolGRPC {
		c = clients.GRPC.Traces(cfg.exporter(""))
	} else {
		c = otlptracehttp.NewClient(clients.Settings(cfg.exporter("/v1/traces"), otlptracehttp.WithEndpointURL, otlptracehttp.WithHeaders)...)
	}
	if err := c.Start(ctx); err != nil {
		return nil, fmt.Errorf("tracing/otlp: %w", err)
	}
	return c, nil
}

// pipeline is spans → marshaller → uplink in a child, and spans → marshaller → export → payloads →
// client in the master, where children's payloads join at export. Metrics are collector → sender →
// uplink in a child, and collector → aggregator → readers in the master, where children's metrics
// join at the aggregator.
type pipeline struct {
	provider trace.TracerProvider
	life     trace.TracerProvider
	sdk      *sdktrace.TracerProvider // nil when spans are off
	spans    *queue[endedSpan]        // likewise
	payloads *queue[payload]          // nil in a child
	client   otlptrace.Client         // nil in a child
	table    *spanTable               // nil in the master, and without a table

	meter         *tracing.Meter           // nil when metrics are off
	aggregator    *aggregator              // nil in a child
	sender        *metricSender            // nil in the master
	readers       *sdkmetric.MeterProvider // for the collector and Prometheus; nil in a child
	scrape        http.Handler             // nil in a child
	collector     *collector               // nil when metrics are off
	programMeters *sdkmetric.MeterProvider // of the program's own instruments; likewise

	recovered      atomic.Uint64 // spans from tables
	metricsDropped atomic.Uint64 // requests that failed

	shutdown    sync.Once
	shutdownErr error
}

func (p *pipeline) TracerProvider() trace.TracerProvider { return p.provider }
func (p *pipeline) LifeProvider() trace.TracerProvider   { return p.life }
func (p *pipeline) Meter() *tracing.Meter                { return p.meter }

// export queues a TracesData message.
func (p *pipeline) export(otlp []byte) error {
	if p.payloads == nil {
		return fmt.Errorf("%w: this process exports no spans", tracing.ErrPayload)
	}
	parts, err := splitPayload(otlp)
	if err != nil {
		return err
	}
	p.payloads.put(payload{parts: parts, size: len(otlp)})
	return nil
}

// upload is the send function of the queue of payloads: it makes one request of a batch.
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
		var errs []error
		if p.sdk != nil {
			errs = append(errs, p.sdk.Shutdown(ctx))
		}
		if p.payloads != nil {
			errs = append(errs, p.payloads.close(ctx))
			<-p.payloads.done // the client returns when its context ends
			errs = append(errs, p.client.Stop(ctx))
		}
		if p.sender != nil {
			p.sender.stop()
			errs = append(errs, p.sender.wait(ctx))
		}
		if p.readers != nil {
			errs = append(errs, p.readers.Shutdown(ctx))
		}
		if p.programMeters != nil {
			errs = append(errs, p.programMeters.Shutdown(ctx))
		}
		current.CompareAndSwap(p, nil)
		installed.CompareAndSwap(p, nil)
		if err := errors.Join(errs...); err != nil {
			p.shutdownErr = fmt.Errorf("tracing/otlp: shutdown: %w", err)
		}
	})
	return p.shutdownErr
}

func (p *pipeline) Stats() tracing.PipelineStats {
	s := tracing.PipelineStats{Recovered: p.recovered.Load(), MetricsDropped: p.metricsDropped.Load()}
	if p.spans != nil {
		s.Spans, s.SpansDropped = p.spans.accepted.Load(), p.spans.dropped.Load()
	}
	if p.table != nil {
		s.TableFull = p.table.full.Load()
	}
	if p.payloads != nil {
		s.Payloads, s.PayloadsDropped = p.payloads.accepted.Load(), p.payloads.dropped.Load()
	}
	return s
}

// watch emits the pipeline's own counters.
func (p *pipeline) watch(emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
	s := p.Stats()
	emit(tracing.SpansDropped, int64(s.SpansDropped))
	if p.aggregator != nil { // children have none
		emit(tracing.PayloadsDropped, int64(s.PayloadsDropped))
		emit(tracing.MetricsDropped, int64(s.MetricsDropped))
	}
	emit(tracing.SpansRecovered, int64(s.Recovered))
	emit(tracing.TableFull, int64(s.TableFull))
}
