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

	promclient "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/coppice-go/coppice/tracing"
)

// current is the master's pipeline that PrometheusHandler shows.
var current atomic.Pointer[pipeline]

// startMetrics makes what counts go through: in a child the uplink, in the master
// the readers.
func (p *pipeline) startMetrics(ctx context.Context, cfg Config, s settings, process tracing.ProcessResource, up *tracing.Uplink) error {
	p.reader = sdkmetric.NewManualReader() // cumulative, with the buckets that the instrument names
	p.programMeters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(p.reader))
	if up != nil {
		send := func(b []byte) error { return up.Send(tracing.Metrics, b) }
		p.tickers = []*metricSender{newMetricSender(p.points, send), newMetricSender(p.ownPayloads, send)}
		return nil
	}
	p.aggregator = newAggregator()
	from := producer{p.ownBooks(process), p.aggregator, time.Now()}
	opts := []sdkmetric.Option{sdkmetric.WithResource(newResourceOf(ctx, cfg, process, os.Getpid()))}
	if s.pushMetrics {
		exporter, err := newMetricExporter(ctx, cfg, s.metricsProtocol)
		if err != nil {
			return fmt.Errorf("tracing/otlp: metrics: %w", err)
		}
		exporter = countingExporter{exporter, &p.metricsDropped}
		// The interval comes from OTEL_METRIC_EXPORT_INTERVAL, by the SDK.
		opts = append(opts, sdkmetric.WithReader(sdkmetric.NewPeriodicReader(exporter, sdkmetric.WithProducer(from))))
	}
	registry := promclient.NewRegistry()
	reader, err := prometheus.New(prometheus.WithRegisterer(registry), prometheus.WithProducer(from), prometheus.WithoutScopeInfo())
	if err != nil {
		return fmt.Errorf("tracing/otlp: metrics: %w", err)
	}
	p.scrape = promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true,
		// Series that say the same of different scopes are in each other's way; the
		// others are none the worse for it.
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      new(scrapeLog),
	})
	p.readers = sdkmetric.NewMeterProvider(append(opts, sdkmetric.WithReader(reader))...)
	current.Store(p)
	return nil
}

// scrapeLog tells the first thing that is wrong with what is scraped; the next scrape
// has the same.
type scrapeLog struct{ once sync.Once }

func (l *scrapeLog) Println(v ...any) {
	l.once.Do(func() { otel.Handle(fmt.Errorf("tracing/otlp: a scrape: %s", fmt.Sprintln(v...))) })
}

// points is the payload of what Coppice counts.
func (p *pipeline) points(context.Context) ([][]byte, error) {
	b, err := writePoints(p.meter.Collect())
	if err != nil {
		return nil, err
	}
	return [][]byte{b}, nil
}

// ownPayloads are those of the program's own instruments. Callbacks of the program
// run here.
func (p *pipeline) ownPayloads(ctx context.Context) ([][]byte, error) {
	metrics, err := p.collect(ctx)
	payloads, err2 := writeMetrics(metrics, time.Now().UnixNano())
	return payloads, errors.Join(err, err2)
}

func (p *pipeline) collect(ctx context.Context) ([]metric, error) {
	var rm metricdata.ResourceMetrics
	err := p.reader.Collect(ctx, &rm)
	if errors.Is(err, sdkmetric.ErrReaderShutdown) {
		return nil, nil
	}
	metrics, err2 := checked(fromSDK(&rm))
	return merged(metrics), errors.Join(err, err2)
}

// ownBooks returns what puts the master's own counts into the books, which the
// readers call. A callback of the program that hangs costs each of them metricsEvery,
// and what the program's instruments count in the master, but no more than that.
func (p *pipeline) ownBooks(process tracing.ProcessResource) func(context.Context) {
	ours, own := p.aggregator.open(process.Name), p.aggregator.open(process.Name)
	var mu sync.Mutex // what was collected first is put in first
	var round int64
	collecting := make(chan struct{}, 1) // guards ownRound
	var ownRound int64
	var failed sync.Once
	return func(ctx context.Context) {
		mu.Lock()
		round++
		ours.receive(round, metricsOf(p.meter.Collect()))
		mu.Unlock()

		ctx, cancel := context.WithTimeout(ctx, metricsInterval)
		defer cancel()
		select {
		case collecting <- struct{}{}:
		case <-ctx.Done():
			return
		}
		done := make(chan struct{})
		go func() { // the only one; ends when the program's callbacks have returned
			defer func() { <-collecting; close(done) }()
			ownRound++
			metrics, err := p.collect(ctx)
			own.receive(ownRound, metrics)
			if err != nil {
				failed.Do(func() { otel.Handle(fmt.Errorf("tracing/otlp: metrics: %w", err)) })
			}
		}()
		select {
		case <-done:
		case <-ctx.Done():
		}
	}
}

func newMetricExporter(ctx context.Context, cfg Config, protocol string) (sdkmetric.Exporter, error) {
	if protocol == protocolGRPC {
		return otlpmetricgrpc.New(ctx, cfg.metricGRPCOptions()...)
	}
	return otlpmetrichttp.New(ctx, cfg.metricHTTPOptions()...)
}

// countingExporter is an exporter whose failures cost a counter: the next request has the
// whole of every sum again.
type countingExporter struct {
	sdkmetric.Exporter
	failed *atomic.Uint64
}

func (c countingExporter) Export(ctx context.Context, rm *metricdata.ResourceMetrics) error {
	if err := c.Exporter.Export(ctx, rm); err != nil {
		if c.failed.Add(1) == 1 {
			otel.Handle(fmt.Errorf("tracing/otlp: metrics: %w", err))
		}
	}
	return nil
}

// PrometheusHandler answers a scrape with what the whole tree has counted, in the
// text format, or in OpenMetrics with exemplars where the scraper asks for that.
// Serve it in the master, on a port of its own: nothing else has the sums. While no
// pipeline with metrics runs in this process it answers 503.
func PrometheusHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := current.Load()
		if p == nil {
			http.Error(w, "no metrics in this process", http.StatusServiceUnavailable)
			return
		}
		p.scrape.ServeHTTP(w, r)
	})
}
