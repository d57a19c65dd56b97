package otlp

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// Bounds on a program's own instruments. A series beyond them is left out where it
// is counted; of a child that sends one all the same the payload is refused.
const (
	maxAttributes     = 32  // attributes of a series
	maxAttributeText  = 512 // bytes of a key or a value
	maxInstrumentText = 512 // bytes of a name, a version, a unit, a description
	maxBuckets        = 256
)

// instrumentName is OpenTelemetry's rule.
var instrumentName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_./-]{0,254}$`)

// errInstrument is wrapped by what OpenTelemetry's error handler hears of series of a
// program's own instruments that are not exported.
var errInstrument = errors.New("tracing/otlp: instrument left out")

// check says what is wrong with an instrument of a program's own. The names that
// begin with ours are ours, also as Prometheus writes them.
func (m metric) check() error {
	switch {
	case !instrumentName.MatchString(m.name):
		return fmt.Errorf("%w: name %q", errInstrument, clip(m.name, 64))
	case strings.HasPrefix(strings.ToLower(m.name), "coppice"):
		return fmt.Errorf("%w: %s: the prefix coppice is taken", errInstrument, m.name)
	case !utf8.ValidString(m.unit + m.description + m.scope.name + m.scope.version + m.scope.schema):
		return fmt.Errorf("%w: %s: unit, description or scope is not UTF-8", errInstrument, m.name)
	case max(len(m.unit), len(m.description), len(m.scope.name), len(m.scope.version), len(m.scope.schema)) > maxInstrumentText:
		return fmt.Errorf("%w: %s: unit, description or scope of more than %d bytes", errInstrument, m.name, maxInstrumentText)
	}
	return nil
}

// check says what is wrong with a series of m.
func (p dataPoint) check(m metric) error {
	bad := func(why string) error {
		return fmt.Errorf("%w: %s: %s", errInstrument, m.name, why)
	}
	if p.labels.Len() > maxAttributes {
		return bad("too many attributes")
	}
	for it := p.labels.Iter(); it.Next(); {
		kv := it.Attribute()
		key, value := string(kv.Key), kv.Value.String()
		switch {
		case key == "" || !utf8.ValidString(key+value):
			return bad(fmt.Sprintf("attribute %q is not UTF-8, or has no name", clip(key, 64)))
		case max(len(key), len(value)) > maxAttributeText:
			return bad(fmt.Sprintf("attribute %q of more than %d bytes", clip(key, 64), maxAttributeText))
		case key == "le" && m.kind == histogram: // which Prometheus has for the buckets
			return bad("attribute le of a histogram")
		}
	}
	finite := func(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }
	if !finite(p.f) {
		return bad("not a number")
	}
	switch m.kind {
	case level, gauge:
	case counter:
		if p.n < 0 || p.f < 0 {
			return bad("a counter below zero")
		}
	case histogram:
		if len(p.buckets) != len(p.bounds)+1 || len(p.buckets) > maxBuckets {
			return bad("buckets")
		}
		for i, b := range p.bounds {
			if !finite(b) || i > 0 && b <= p.bounds[i-1] {
				return bad("bounds of buckets")
			}
		}
		if len(p.exemplars) > len(p.buckets) {
			return bad("too many exemplars")
		}
	}
	return nil
}

// checked returns what can be kept of metrics, and what is wrong with the rest.
func checked(metrics []metric) (good []metric, err error) {
	for _, m := range metrics {
		if e := m.check(); e != nil {
			err = errors.Join(err, e)
			continue
		}
		points := m.points
		m.points = nil
		for _, p := range points {
			if e := p.check(m); e != nil {
				err = errors.Join(err, e)
				continue
			}
			m.points = append(m.points, p)
		}
		if len(m.points) > 0 {
			good = append(good, m)
		}
	}
	return good, err
}

// merged adds up the series that come twice: the SDK keeps apart what two parts of a
// process count by instruments that differ in their description, by meters that differ
// in their attributes. Of two gauges it has one.
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

// fromSDK puts what the SDK has collected, cumulatively, into the form of the books.
func fromSDK(rm *metricdata.ResourceMetrics) []metric {
	var metrics []metric
	for _, sm := range rm.ScopeMetrics {
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
			default:
				continue // our readers ask for nothing else
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
		if len(p.Bounds) == 0 && len(p.BucketCounts) == 0 { // a view may ask for the sum alone
			mine.buckets = []uint64{p.Count}
		}
		for _, e := range p.Exemplars {
			mine.exemplars = append(mine.exemplars, metricdata.Exemplar[float64]{
				Value: float64(e.Value), Time: e.Time, TraceID: e.TraceID, SpanID: e.SpanID,
			})
		}
		out = append(out, mine)
	}
	return out
}
