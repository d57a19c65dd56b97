package otlptest

import (
	"encoding/hex"
	"fmt"

	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"
)

// Metric is one point of a metric as it arrived.
type Metric struct {
	Name, Unit string
	Monotonic  bool
	Attributes map[string]string
	Value      float64  // of a histogram: the sum
	Count      uint64   // of a histogram
	Exemplars  []string // of a histogram: trace ids
}

// DecodeMetrics decodes a MetricsData message, which has the bytes of the request
// of an OTLP exporter.
func DecodeMetrics(otlp []byte) ([]Metric, error) {
	var data metricspb.MetricsData
	if err := proto.Unmarshal(otlp, &data); err != nil {
		return nil, fmt.Errorf("otlptest: %w", err)
	}
	points := []Metric{}
	for _, rm := range data.ResourceMetrics {
		for _, sm := range rm.ScopeMetrics {
			for _, m := range sm.Metrics {
				for _, dp := range m.GetSum().GetDataPoints() {
					points = append(points, Metric{
						Name: m.Name, Unit: m.Unit, Monotonic: m.GetSum().IsMonotonic,
						Attributes: attributes(dp.Attributes), Value: float64(dp.GetAsInt()) + dp.GetAsDouble(),
					})
				}
				for _, dp := range m.GetGauge().GetDataPoints() {
					points = append(points, Metric{
						Name: m.Name, Unit: m.Unit, Attributes: attributes(dp.Attributes), Value: float64(dp.GetAsInt()) + dp.GetAsDouble(),
					})
				}
				for _, dp := range m.GetHistogram().GetDataPoints() {
					p := Metric{
						Name: m.Name, Unit: m.Unit, Monotonic: true,
						Attributes: attributes(dp.Attributes), Value: dp.GetSum(), Count: dp.Count,
					}
					for _, e := range dp.Exemplars {
						p.Exemplars = append(p.Exemplars, hex.EncodeToString(e.TraceId))
					}
					points = append(points, p)
				}
			}
		}
	}
	return points, nil
}
