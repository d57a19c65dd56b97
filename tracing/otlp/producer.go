package otlp

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/coppice-go/coppice/tracing"
)

// producer gives the books to the SDK's readers, in its own form.
type producer struct {
	books *books
	began time.Time
}

var _ sdkmetric.Producer = producer{}

// Produce returns the sum over the tree, by instrument.
func (p producer) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	now := time.Now()
	by := make(map[*tracing.Instrument][]tracing.Point)
	for _, pt := range p.books.total() {
		by[pt.Instrument] = append(by[pt.Instrument], pt)
	}
	sm := metricdata.ScopeMetrics{Scope: instrumentation.Scope{Name: tracing.ScopeName, SchemaURL: tracing.SchemaURL}}
	for _, i := range tracing.Instruments {
		if len(by[i]) > 0 {
			sm.Metrics = append(sm.Metrics, metricdata.Metrics{
				Name: i.Name, Unit: i.Unit, Description: i.Description, Data: p.data(i, by[i], now),
			})
		}
	}
	return []metricdata.ScopeMetrics{sm}, nil
}

func (p producer) data(i *tracing.Instrument, points []tracing.Point, now time.Time) metricdata.Aggregation {
	if i.Kind == tracing.Duration {
		h := metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality}
		for _, pt := range points {
			dp := metricdata.HistogramDataPoint[float64]{
				Attributes: pt.Labels, StartTime: p.began, Time: now,
				Bounds: tracing.Bounds, BucketCounts: pt.Buckets, Sum: pt.Total.Seconds(),
			}
			for _, n := range pt.Buckets {
				dp.Count += n
			}
			for _, e := range pt.Exemplars {
				tid, sid := e.Span.TraceID(), e.Span.SpanID()
				dp.Exemplars = append(dp.Exemplars, metricdata.Exemplar[float64]{
					Value: e.Value.Seconds(), Time: e.At, TraceID: tid[:], SpanID: sid[:],
				})
			}
			h.DataPoints = append(h.DataPoints, dp)
		}
		return h
	}
	s := metricdata.Sum[int64]{Temporality: metricdata.CumulativeTemporality, IsMonotonic: i.Kind == tracing.Sum}
	for _, pt := range points {
		s.DataPoints = append(s.DataPoints, metricdata.DataPoint[int64]{
			Attributes: pt.Labels, StartTime: p.began, Time: now, Value: pt.Value,
		})
	}
	return s
}
