package otlp

import (
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/coppice-go/coppice/tracing"
)

// What a process counts travels as OTLP (MetricsData): all of it each time, and cumulative.
// So a worker in another language can send what its SDK makes.

// writeMetrics returns payloads of about payloadMax bytes at most. round is a time in ns.
func writeMetrics(metrics []metric, round int64) (payloads [][]byte, err error) {
	var parts []*metricspb.ScopeMetrics
	size := 0
	flush := func() error {
		if len(parts) == 0 {
			return nil
		}
		b, err := proto.Marshal(&metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{{ScopeMetrics: parts}}})
		if err != nil {
			return fmt.Errorf("tracing/otlp: metrics: %w", err)
		}
		payloads = append(payloads, b)
		parts, size = nil, 0
		return nil
	}
	var add func(m metric, points []dataPoint) error
	add = func(m metric, points []dataPoint) error {
		part := m.message(points, uint64(round))
		n := proto.Size(part)
		if half := len(points) / 2; n > payloadMax && half > 0 { // one series is far smaller
			if err := add(m, points[:half]); err != nil {
				return err
			}
			return add(m, points[half:])
		}
		if size+n > payloadMax {
			if err := flush(); err != nil {
				return err
			}
		}
		parts, size = append(parts, part), size+n
		return nil
	}
	for _, m := range metrics {
		for points := range slices.Chunk(m.points, 128) {
			if err := add(m, points); err != nil {
				return payloads, err
			}
		}
	}
	return payloads, flush()
}

// message returns points of m as a message.
func (m metric) message(points []dataPoint, at uint64) *metricspb.ScopeMetrics {
	out := &metricspb.Metric{Name: m.name, Unit: m.unit, Description: m.description}
	const cumulative = metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE
	if m.kind == histogram {
		h := &metricspb.Histogram{AggregationTemporality: cumulative}
		for _, p := range points {
			dp := &metricspb.HistogramDataPoint{
				Attributes: messagesOf(p.labels), TimeUnixNano: at, Sum: proto.Float64(p.f),
				ExplicitBounds: p.bounds, BucketCounts: p.buckets,
			}
			for _, n := range p.buckets {
				dp.Count += n
			}
			for _, e := range p.exemplars {
				dp.Exemplars = append(dp.Exemplars, &metricspb.Exemplar{
					TimeUnixNano: uint64(e.Time.UnixNano()), TraceId: e.TraceID, SpanId: e.SpanID,
					Value: &metricspb.Exemplar_AsDouble{AsDouble: e.Value},
				})
			}
			h.DataPoints = append(h.DataPoints, dp)
		}
		out.Data = &metricspb.Metric_Histogram{Histogram: h}
	} else {
		var dps []*metricspb.NumberDataPoint
		for _, p := range points {
			dp := &metricspb.NumberDataPoint{Attributes: messagesOf(p.labels), TimeUnixNano: at, Value: &metricspb.NumberDataPoint_AsInt{AsInt: p.n}}
			if p.float {
				dp.Value = &metricspb.NumberDataPoint_AsDouble{AsDouble: p.f}
			}
			dps = append(dps, dp)
		}
		if m.kind == gauge {
			out.Data = &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: dps}}
		} else {
			out.Data = &metricspb.Metric_Sum{Sum: &metricspb.Sum{
				DataPoints: dps, AggregationTemporality: cumulative, IsMonotonic: m.kind == counter,
			}}
		}
	}
	return &metricspb.ScopeMetrics{
		Scope:     &commonpb.InstrumentationScope{Name: m.scope.name, Version: m.scope.version},
		SchemaUrl: m.scope.schema, Metrics: []*metricspb.Metric{out},
	}
}

// readMetrics is the inverse, for bytes of a child, which is not trusted: what is out of
// bounds is an error. Kinds of metric that are not added up are left out, and so are
// Coppice's instruments of another release.
func readMetrics(payload []byte) (round int64, metrics []metric, err error) {
	bad := func(err error) (int64, []metric, error) {
		return 0, nil, fmt.Errorf("%w: metrics: %w", tracing.ErrPayload, err)
	}
	if len(payload) > 2*payloadMax {
		return bad(fmt.Errorf("%d bytes", len(payload)))
	}
	var data metricspb.MetricsData
	if err := proto.Unmarshal(payload, &data); err != nil {
		return bad(err)
	}
	for _, rm := range data.ResourceMetrics {
		for _, sm := range rm.GetScopeMetrics() {
			for _, in := range sm.GetMetrics() {
				m := metric{
					instrument: instrument{
						scope: scope{sm.GetScope().GetName(), sm.GetScope().GetVersion(), sm.GetSchemaUrl()},
						name:  in.GetName(), unit: in.GetUnit(),
					},
					description: in.GetDescription(),
				}
				at, err := m.read(in)
				known := true
				if err == nil && m.isCoppice() {
					known, err = m.checkCoppice()
				} else if err == nil {
					err = m.check()
				}
				for i := 0; err == nil && i < len(m.points); i++ {
					err = m.points[i].check(m)
				}
				if err != nil {
					return bad(err)
				}
				round = max(round, at)
				if known && len(m.points) > 0 {
					metrics = append(metrics, m)
				}
			}
		}
	}
	return round, metrics, nil
}

// read sets the kind and the points of m from a message, and returns the points' time.
func (m *metric) read(in *metricspb.Metric) (at int64, err error) {
	var dps []*metricspb.NumberDataPoint
	switch d := in.Data.(type) {
	case *metricspb.Metric_Sum:
		m.kind, dps = sumKind(d.Sum.GetIsMonotonic()), d.Sum.GetDataPoints()
		err = m.cumulative(d.Sum.GetAggregationTemporality())
	case *metricspb.Metric_Gauge:
		m.kind, dps = gauge, d.Gauge.GetDataPoints()
	case *metricspb.Metric_Histogram:
		m.kind = histogram
		err = m.cumulative(d.Histogram.GetAggregationTemporality())
		for _, dp := range d.Histogram.GetDataPoints() {
			if err == nil {
				err = checkAttributeCount(m.name, dp.GetAttributes())
			}
			if err != nil {
				return 0, err
			}
			at = max(at, int64(dp.GetTimeUnixNano()))
			p := dataPoint{labels: setOf(dp.GetAttributes()), f: dp.GetSum(), float: true, bounds: dp.GetExplicitBounds(), buckets: dp.GetBucketCounts()}
			if len(p.buckets) == 0 && len(p.bounds) == 0 {
				p.buckets = []uint64{dp.GetCount()}
			}
			for _, e := range dp.GetExemplars() {
				if len(e.GetTraceId()) == 16 && len(e.GetSpanId()) == 8 {
					p.exemplars = append(p.exemplars, metricdata.Exemplar[float64]{
						Value: e.GetAsDouble(), Time: time.Unix(0, int64(e.GetTimeUnixNano())), TraceID: e.GetTraceId(), SpanID: e.GetSpanId(),
					})
				}
			}
			m.points = append(m.points, p)
		}
	}
	for _, dp := range dps {
		if err == nil {
			err = checkAttributeCount(m.name, dp.GetAttributes())
		}
		if err != nil {
			return 0, err
		}
		at = max(at, int64(dp.GetTimeUnixNano()))
		_, float := dp.GetValue().(*metricspb.NumberDataPoint_AsDouble)
		m.points = append(m.points, dataPoint{labels: setOf(dp.GetAttributes()), n: dp.GetAsInt(), f: dp.GetAsDouble(), float: float})
	}
	return at, err
}

func (m *metric) cumulative(t metricspb.AggregationTemporality) error {
	if t != metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE {
		return fmt.Errorf("%w: %s: not cumulative", errInstrument, clip(m.name, 64))
	}
	return nil
}

// checkAttributeCount limits the attributes before a set is made of them: package attribute
// makes an array type for each number of attributes, which is never freed.
func checkAttributeCount(name string, kvs []*commonpb.KeyValue) error {
	if len(kvs) > maxAttributes {
		return fmt.Errorf("%w: %s: %d attributes", errInstrument, clip(name, 64), len(kvs))
	}
	return nil
}
