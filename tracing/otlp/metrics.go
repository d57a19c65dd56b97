package otlp

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	promclient "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/coppice-go/coppice/tracing"
	"github.com/coppice-go/coppice/tracing/otlp/internal/clients"
)

// current is the master's pipeline, which PrometheusHandler shows.
var current atomic.Pointer[pipeline]

// startMetrics sets up what metrics pass: the sender in a child, the readers in the master.
func (p *pipeline) startMetrics(ctx context.Context, cfg Config, s settings, process tracing.ProcessResource, up *tracing.Uplink) error {
	p.collector = newCollector(p.meter, s.bridge)
	p.programMeters = sdkmetric.NewMeterProvider(sdkmetric.WithReader(p.collector.reader))
	if up != nil {
		p.sender = newMetricSender(p.collector, func(b []byte) error { return up.Send(tracing.Metrics, b) })
		return nil
	}
	p.aggregator = newAggregator()
	own := &masterMetrics{collector: p.collector, to: p.aggregator.open(process.Name)}
	from := producer{update: own.update, aggregator: p.aggregator, began: time.Now()}
	opts := []sdkmetric.Option{sdkmetric.WithResource(newResource(ctx, cfg, process, os.Getpid()))}
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
		// Equal series of different scopes conflict; the others are shown all the same.
		ErrorHandling: promhttp.ContinueOnError,
		ErrorLog:      new(scrapeLog),
	})
	p.readers = sdkmetric.NewMeterProvider(append(opts, sdkmetric.WithReader(reader))...)
	current.Store(p)
	return nil
}

// scrapeLog reports the first error of a scrape; later scrapes have the same.
type scrapeLog struct{ once sync.Once }

func (l *scrapeLog) Println(v ...any) {
	l.once.Do(func() { otel.Handle(fmt.Errorf("tracing/otlp: a scrape: %s", fmt.Sprintln(v...))) })
}

// masterMetrics gives what the master itself has counted to the aggregator, whenever a reader asks.
type masterMetrics struct {
	collector *collector
	failed    sync.Once

	mu    sync.Mutex // what is collected first is received first
	to    *processMetrics
	round int64
}

// update collects and aggregates. A callback of the program that hangs delays the reader by
// metricsInterval, and the program's instruments keep their values until it returns.
func (m *masterMetrics) update(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, metricsInterval)
	defer cancel()
	m.collector.refresh(ctx)
	m.mu.Lock()
	defer m.mu.Unlock()
	program, err := m.collector.latest()
	if err != nil {
		m.failed.Do(func() { otel.Handle(fmt.Errorf("tracing/otlp: metrics: %w", err)) })
	}
	m.round++
	m.to.receive(m.round, append(m.collector.coppice(), program...))
}

func newMetricExporter(ctx context.Context, cfg Config, protocol string) (sdkmetric.Exporter, error) {
	if protocol == protocolGRPC {
		return clients.GRPC.Metrics(ctx, cfg.exporter(""))
	}
	return otlpmetrichttp.New(ctx, clients.Settings(cfg.exporter("/v1/metrics"), otlpmetrichttp.WithEndpointURL, otlpmetrichttp.WithHeaders)...)
}

// countingExporter counts failed requests and hides them from the SDK: the next request has
// the whole of every sum again.
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

// noMetrics is what a scrape gets where there are no metrics.
const noMetrics = "no metrics in this process: set OTEL_METRICS_EXPORTER=prometheus, or call otlp.Use, before the tree is started, and serve this page in the master, which has the sums of the whole tree"

// PrometheusHandler answers a scrape with the metrics of the whole tree, in the text format,
// or in OpenMetrics with exemplars if the scraper asks for it. Serve it in the master, which
// alone has the sums, on a separate port. It answers 503, and says how to turn metrics on, in
// a process without a pipeline that has metrics.
func PrometheusHandler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { current.Load().ServeMetrics(w, r) })
}

// ServeMetrics implements tracing.MetricsPage. It may be called on a nil pipeline.
func (p *pipeline) ServeMetrics(w http.ResponseWriter, r *http.Request) {
	if p == nil || p.scrape == nil {
		http.Error(w, noMetrics, http.StatusServiceUnavailable)
		return
	}
	p.scrape.ServeHTTP(w, r)
}
