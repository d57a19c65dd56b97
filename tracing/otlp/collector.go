package otlp

import (
	"context"
	"encoding/hex"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/bridges/prometheus"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/coppice-go/coppice/tracing"
)

// collector collects what one process counts: by Coppice's instruments, and by those of the
// program. Its methods may be called by any goroutine.
type collector struct {
	meter  *tracing.Meter
	reader *sdkmetric.ManualReader // of the program's instruments, those of client_golang too
	busy   chan struct{}           // capacity 1: holds a token while the program's callbacks run

	mu      sync.Mutex
	program []metric // as of the last collection that has ended; guarded by mu
	err     error    // of that collection; guarded by mu
}

// newCollector returns a collector, which collects from client_golang's default registry if
// bridge is true.
func newCollector(meter *tracing.Meter, bridge bool) *collector {
	var opts []sdkmetric.ManualReaderOption // cumulative, with the buckets that the instrument names
	if bridge {
		opts = append(opts, sdkmetric.WithProducer(prometheus.NewMetricProducer()))
	}
	return &collector{meter: meter, reader: sdkmetric.NewManualReader(opts...), busy: make(chan struct{}, 1)}
}

// coppice returns what Coppice's instruments have counted.
func (c *collector) coppice() []metric { return fromMeter(c.meter.Collect()) }

// latest returns what the program's instruments had counted at the last refresh, and what
// was wrong with it.
func (c *collector) latest() ([]metric, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.program, c.err
}

// refresh collects from the program's instruments. Callbacks of the program run, and may
// hang: the end of ctx ends the wait, and latest then returns what was there before. While
// callbacks hang no others are started.
func (c *collector) refresh(ctx context.Context) {
	select {
	case c.busy <- struct{}{}:
	case <-ctx.Done():
		return
	}
	done := make(chan struct{})
	go func() { // the only one; ends when the program's callbacks have returned
		defer close(done)
		defer c.release()
		metrics, err := c.collect(ctx)
		c.mu.Lock()
		defer c.mu.Unlock()
		if metrics != nil || ctx.Err() == nil { // else ctx had ended before the collection began
			c.program, c.err = metrics, err
		}
	}()
	select {
	case <-done:
	case <-ctx.Done():
	}
}

// wait waits until no callback of the program runs.
func (c *collector) wait() {
	c.busy <- struct{}{}
	c.release()
}

func (c *collector) release() { <-c.busy }

func (c *collector) collect(ctx context.Context) ([]metric, error) {
	var rm metricdata.ResourceMetrics
	err := c.reader.Collect(ctx, &rm)
	if errors.Is(err, sdkmetric.ErrReaderShutdown) {
		return nil, nil
	}
	metrics, err2 := checked(fromSDK(&rm))
	return merged(metrics), errors.Join(err, err2)
}

// fromMeter returns the values of a meter as metrics.
func fromMeter(points []tracing.DataPoint) []metric {
	var metrics []metric
	at := make(map[*tracing.Instrument]int)
	for _, p := range points {
		i, known := at[p.Instrument]
		if !known {
			i = len(metrics)
			at[p.Instrument] = i
			metrics = append(metrics, metricOf(p.Instrument))
		}
		mine := dataPoint{labels: p.Labels, n: p.Value}
		switch p.Instrument.Kind {
		case tracing.Duration, tracing.LongDuration:
			mine = dataPoint{labels: p.Labels, f: p.Total.Seconds(), float: true, bounds: p.Instrument.Bounds(), buckets: p.Buckets}
		case tracing.Seconds, tracing.LevelSeconds:
			mine = dataPoint{labels: p.Labels, f: time.Duration(p.Value).Seconds(), float: true}
		case tracing.Sum, tracing.Level:
		}
		for _, e := range p.Exemplars {
			tid, sid := e.Span.TraceID(), e.Span.SpanID()
			mine.exemplars = append(mine.exemplars, metricdata.Exemplar[float64]{
				Value: e.Value.Seconds(), Time: e.At, TraceID: tid[:], SpanID: sid[:],
			})
		}
		metrics[i].points = append(metrics[i].points, mine)
	}
	return metrics
}

// merged adds up series that occur twice. The SDK keeps instruments apart that differ in their
// description only, and meters that differ in their attributes. Of two gauges the first is kept.
func merged(metrics []metric) (all []metric) {
	at := make(map[instrument]int) // in all
	series := make(map[seriesKey]int)
	for _, m := range metrics {
		i, known := at[m.instrument]
		if !known {
			i = len(all)
			at[m.instrument] = i
			all = append(all, metric{instrument: m.instrument, description: m.description})
		}
		to := &all[i]
		for _, p := range m.points {
			key := seriesKey{m.instrument, p.labels.Equivalent()}
			n, twice := series[key]
			switch {
			case !twice:
				series[key] = len(to.points)
				to.points = append(to.points, p)
			case m.kind != gauge:
				first := &to.points[n]
				addPoint(first, p)
				first.exemplars = first.exemplars[:min(len(first.exemplars), len(first.buckets))]
			}
		}
	}
	return all
}

// The exporter for Prometheus drops what has the scope of the bridge from client_golang: it is
// meant to be scraped at its registry, which here is in another process.
const (
	bridgeScope = "go.opentelemetry.io/contrib/bridges/prometheus"
	clientScope = "github.com/prometheus/client_golang"
)

// fromSDK returns what the SDK has collected, cumulatively, as metrics.
func fromSDK(rm *metricdata.ResourceMetrics) []metric {
	var metrics []metric
	for _, sm := range rm.ScopeMetrics {
		if sm.Scope.Name == bridgeScope {
			sm.Scope.Name = clientScope
		}
		for _, data := range sm.Metrics {
			m := metric{
				instrument:  instrument{scope: scope{sm.Scope.Name, sm.Scope.Version, sm.Scope.SchemaURL}, name: data.Name, unit: data.Unit},
				description: data.Description,
			}
			switch d := data.Data.(type) {
			case metricdata.Sum[int64]:
				m.kind, m.points = sumKind(d.IsMonotonic), integers(d.DataPoints)
			case metricdata.Sum[float64]:
				m.kind, m.points = sumKind(d.IsMonotonic), floats(d.DataPoints)
			case metricdata.Gauge[int64]:
				m.kind, m.points = gauge, integers(d.DataPoints)
			case metricdata.Gauge[float64]:
				m.kind, m.points = gauge, floats(d.DataPoints)
			case metricdata.Histogram[int64]:
				m.kind, m.points = histogram, distributions(d.DataPoints)
			case metricdata.Histogram[float64]:
				m.kind, m.points = histogram, distributions(d.DataPoints)
			case metricdata.Summary: // its quantiles cannot be added up
				m.kind = histogram
				for _, p := range d.DataPoints {
					m.points = append(m.points, dataPoint{labels: p.Attributes, f: p.Sum, float: true, buckets: []uint64{p.Count}})
				}
			default:
				m.kind = unknown
			}
			metrics = append(metrics, m)
		}
	}
	return metrics
}

func sumKind(monotonic bool) kind {
	if monotonic {
		return counter
	}
	return level
}

func integers(points []metricdata.DataPoint[int64]) (out []dataPoint) {
	for _, p := range points {
		out = append(out, dataPoint{labels: p.Attributes, n: p.Value})
	}
	return out
}

func floats(points []metricdata.DataPoint[float64]) (out []dataPoint) {
	for _, p := range points {
		out = append(out, dataPoint{labels: p.Attributes, f: p.Value, float: true})
	}
	return out
}

func distributions[N int64 | float64](points []metricdata.HistogramDataPoint[N]) (out []dataPoint) {
	for _, p := range points {
		mine := dataPoint{labels: p.Attributes, f: float64(p.Sum), float: true, bounds: p.Bounds, buckets: p.BucketCounts}
		if len(p.Bounds) == 0 && len(p.BucketCounts) == 0 { // a view may drop the buckets
			mine.buckets = []uint64{p.Count}
		}
		for _, e := range p.Exemplars {
			// The bridge from client_golang leaves the IDs as they are in its labels, as text.
			if tid, err := hex.DecodeString(string(e.TraceID)); err == nil && len(tid) == 16 {
				e.TraceID = tid
				e.SpanID, _ = hex.DecodeString(string(e.SpanID))
			}
			mine.exemplars = append(mine.exemplars, metricdata.Exemplar[float64]{
				Value: float64(e.Value), Time: e.Time, TraceID: e.TraceID, SpanID: e.SpanID,
			})
		}
		out = append(out, mine)
	}
	return out
}
