package otlp

import (
	"math"
	"slices"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/coppice-go/coppice/tracing"
)

// kind is how the values of an instrument add up over processes.
type kind uint8

const (
	counter   kind = iota // only grows: the counts of a process stay after its end
	level                 // goes up and down: the sum over live processes
	gauge                 // of one process, whose path is added to its attributes
	histogram             // only grows
	unknown               // is left out
)

// instrument is what is counted. Its values over all processes are one metric.
type instrument struct {
	scope scope
	name  string
	unit  string
	kind  kind
}

// scope is the instrumentation scope: a library or a part of the program.
type scope struct{ name, version, schema string }

// coppiceScope is the scope of Coppice's instruments.
var coppiceScope = scope{name: tracing.ScopeName, schema: tracing.SchemaURL}

// metric is an instrument with the values of its series.
type metric struct {
	instrument
	description string
	bounds      []float64 // that its points have, if it is a histogram of Coppice
	points      []dataPoint
}

// dataPoint is the value of one series. Integers are counted exactly.
type dataPoint struct {
	labels attribute.Set
	n      int64
	f      float64 // beside n: the value is their sum
	float  bool    // the instrument is one of floats

	// Of a histogram, whose sum of values is f.
	bounds    []float64
	buckets   []uint64 // one more than bounds
	exemplars []metricdata.Exemplar[float64]
}

// textSize is the length of an instrument's texts, in bytes.
func (m metric) textSize() int {
	return len(m.scope.name) + len(m.scope.version) + len(m.scope.schema) + len(m.name) + len(m.unit) + len(m.description)
}

type seriesKey struct {
	instrument
	labels attribute.Distinct
}

// cost is the size of a series, in bytes.
func cost(m metric, p dataPoint) int {
	n := len(m.name) + 16*len(p.buckets)
	for it := p.labels.Iter(); it.Next(); {
		kv := it.Attribute()
		n += len(kv.Key) + len(kv.Value.String())
	}
	return n
}

// The bounds of numbers: beyond them a sum stays where it is.
const maxCount = 1 << 54 // of a bucket, of which there are maxBuckets

func addPoint(s *dataPoint, p dataPoint) {
	s.n = saturatingAdd(s.n, p.n)
	s.f = min(max(s.f+p.f, -math.MaxFloat64), math.MaxFloat64)
	s.float = s.float || p.float
	bounds := commonBounds(s.bounds, p.bounds)
	s.buckets = regroup(s.bounds, s.buckets, bounds)
	for i, n := range regroup(p.bounds, p.buckets, bounds) {
		s.buckets[i] = min(s.buckets[i]+min(n, maxCount), maxCount)
	}
	s.bounds = bounds
	s.exemplars = append(s.exemplars, p.exemplars...)
}

// saturatingAdd returns a + b, or the bound on overflow.
func saturatingAdd(a, b int64) int64 {
	switch c := a + b; {
	case a > 0 && b > 0 && c < 0:
		return math.MaxInt64
	case a < 0 && b < 0 && c >= 0:
		return math.MinInt64
	default:
		return c
	}
}

// commonBounds returns the bounds that a and b both have. At these the counts of both are
// exact, so a release with other buckets than the one before does not distort sums.
func commonBounds(a, b []float64) []float64 {
	if slices.Equal(a, b) {
		return a
	}
	both := []float64{}
	for _, bound := range a {
		if _, ok := slices.BinarySearch(b, bound); ok {
			both = append(both, bound)
		}
	}
	return both
}

// regroup puts counts into the buckets of to, a subset of the bounds in from.
func regroup(from []float64, buckets []uint64, to []float64) []uint64 {
	if len(from) == len(to) {
		return buckets
	}
	grouped := make([]uint64, len(to)+1)
	for i, n := range buckets {
		at := len(to)
		if i < len(from) {
			at, _ = slices.BinarySearch(to, from[i])
		}
		grouped[at] = min(grouped[at]+n, maxCount)
	}
	return grouped
}

// coppiceMetrics are the instruments of Coppice, without values, by name.
var coppiceMetrics = sync.OnceValue(func() map[string]metric {
	all := make(map[string]metric)
	for _, i := range tracing.Instruments {
		all[i.Name] = metricOf(i)
	}
	return all
})

func metricOf(i *tracing.Instrument) metric {
	k := map[tracing.InstrumentKind]kind{tracing.Sum: counter, tracing.Seconds: counter, tracing.Level: level, tracing.LevelSeconds: level, tracing.Duration: histogram, tracing.LongDuration: histogram}[i.Kind]
	return metric{instrument: instrument{coppiceScope, i.Name, i.Unit, k}, description: i.Description, bounds: i.Bounds()}
}
