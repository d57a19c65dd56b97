package otlp

import (
	"cmp"
	"context"
	"slices"
	"time"

	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// producer gives the aggregator's sums to the SDK's readers, in the SDK's types.
type producer struct {
	update     func(context.Context) // aggregates what the master itself has counted
	aggregator *aggregator
	began      time.Time
}

var _ sdkmetric.Producer = producer{}

// Produce returns the sums over the tree, by scope and instrument, Coppice's first.
func (p producer) Produce(ctx context.Context) ([]metricdata.ScopeMetrics, error) {
	if p.update != nil {
		p.update(ctx)
	}
	now := time.Now()
	all := p.aggregator.total()
	slices.SortFunc(all, func(a, b metric) int {
		ours := func(m metric) int {
			if m.scope == coppiceScope {
				return 0
			}
			return 1
		}
		return cmp.Or(ours(a)-ours(b), cmp.Compare(a.scope.name, b.scope.name), cmp.Compare(a.scope.version, b.scope.version),
			cmp.Compare(a.scope.schema, b.scope.schema), cmp.Compare(a.name, b.name), cmp.Compare(a.unit, b.unit), int(a.kind)-int(b.kind))
	})
	var scopes []metricdata.ScopeMetrics
	for i, m := range all {
		if i == 0 || m.scope != all[i-1].scope {
			scopes = append(scopes, metricdata.ScopeMetrics{
				Scope: instrumentation.Scope{Name: m.scope.name, Version: m.scope.version, SchemaURL: m.scope.schema},
			})
		}
		sm := &scopes[len(scopes)-1]
		sm.Metrics = append(sm.Metrics, metricdata.Metrics{
			Name: m.name, Unit: m.unit, Description: m.description, Data: p.data(m, now),
		})
	}
	return scopes, nil
}

func (p producer) data(m metric, now time.Time) metricdata.Aggregation {
	if m.kind == histogram {
		h := metricdata.Histogram[float64]{Temporality: metricdata.CumulativeTemporality}
		for _, pt := range m.points {
			dp := metricdata.HistogramDataPoint[float64]{
				Attributes: pt.labels, StartTime: p.began, Time: now,
				Bounds: pt.bounds, BucketCounts: pt.buckets, Sum: pt.f, Exemplars: pt.exemplars,
			}
			for _, n := range pt.buckets {
				dp.Count += n
			}
			h.DataPoints = append(h.DataPoints, dp)
		}
		return h
	}
	// If one process counts in floats, the metric is one of floats.
	if slices.ContainsFunc(m.points, func(pt dataPoint) bool { return pt.float }) {
		return numbers(p, m, now, func(pt dataPoint) float64 { return float64(pt.n) + pt.f })
	}
	return numbers(p, m, now, func(pt dataPoint) int64 { return pt.n })
}

func numbers[N int64 | float64](p producer, m metric, now time.Time, value func(dataPoint) N) metricdata.Aggregation {
	points := make([]metricdata.DataPoint[N], 0, len(m.points))
	for _, pt := range m.points {
		points = append(points, metricdata.DataPoint[N]{Attributes: pt.labels, StartTime: p.began, Time: now, Value: value(pt)})
	}
	if m.kind == gauge {
		return metricdata.Gauge[N]{DataPoints: points}
	}
	return metricdata.Sum[N]{DataPoints: points, Temporality: metricdata.CumulativeTemporality, IsMonotonic: m.kind == counter}
}
