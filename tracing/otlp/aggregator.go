package otlp

import (
	"errors"
	"math"
	"slices"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/coppice-go/coppice/tracing"
)

// Bounds on what the master keeps of what others have counted. The bytes are those
// of names, attributes and buckets.
const (
	processSeries  = 4 << 10 // of one child
	processBytes   = 2 << 20
	treeSeries     = 16 << 10 // of the whole tree, over all its children that ever were
	treeBytes      = 16 << 20
	overflowSeries = 256     // beyond bookSeries, for what did not find room
	textBytes      = 4 << 20 // of the texts of all instruments that ever were
)

// kind says how the values of an instrument add up over processes.
type kind uint8

const (
	counter   kind = iota // only grows: what a process had counted stays when it ends
	level                 // goes up and down: the sum over the processes that live
	gauge                 // of one process, whose path is added to its attributes
	histogram             // only grows
)

// instrument is what is counted. Its values over all processes are one metric.
type instrument struct {
	scope scope
	name  string
	unit  string
	kind  kind
}

// scope is who counts: the name of a library or of a part of the program.
type scope struct{ name, version, schema string }

// coppiceScope is ours.
var coppiceScope = scope{name: tracing.ScopeName, schema: tracing.SchemaURL}

// metric is an instrument with the values of its series.
type metric struct {
	instrument
	description string
	points      []dataPoint
}

// dataPoint is the value of one series. What is not a float is counted exactly.
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

// textSize is the length of what is said of an instrument, in bytes.
func (m metric) textSize() int {
	return len(m.scope.name) + len(m.scope.version) + len(m.scope.schema) + len(m.name) + len(m.unit) + len(m.description)
}

type seriesKey struct {
	instrument
	labels attribute.Distinct
}

// cost is what a series is charged with, in bytes.
func cost(m metric, p dataPoint) int {
	n := len(m.name) + 16*len(p.buckets)
	for it := p.labels.Iter(); it.Next(); {
		kv := it.Attribute()
		n += len(kv.Key) + len(kv.Value.String())
	}
	return n
}

// aggregator add up what the processes of the tree count. Each tells the whole of its
// counts each time, so what is lost on the way is in what comes next. What a series
// has grown by since is added to its sum, so sums cannot go back, whatever a child
// says and whenever it ends.
type aggregator struct {
	mu        sync.Mutex
	processes []*processMetrics // of processes that live, the youngest last
	sums      map[seriesKey]*dataPoint
	size      int
	known     map[instrument]knownInstrument
	textSize  int // of known, in bytes
}

// knownInstrument is an instrument as it was heard of first. What refers to it does so by these
// strings, so that they are kept once, and not for each series of each process.
type knownInstrument struct {
	instrument
	description string
}

func newAggregator() *aggregator {
	return &aggregator{sums: make(map[seriesKey]*dataPoint), known: make(map[instrument]knownInstrument)}
}

// processMetrics is what one process has counted, as it said last.
type processMetrics struct {
	aggregator *aggregator // nil when metrics are off
	process    string      // its path

	sums   map[seriesKey]*dataPoint  // of what only grows: the most that was heard
	levels map[seriesKey]*levelValue // of the rest
	size   int
	full   bool // was reported

	round, previousRound int64 // of the newest values, and of those before them
}

// levelValue is a level as it was said in a round.
type levelValue struct {
	dataPoint
	round int64
}

func (b *aggregator) open(process string) *processMetrics {
	a := &processMetrics{aggregator: b, process: process, sums: make(map[seriesKey]*dataPoint), levels: make(map[seriesKey]*levelValue)}
	if b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.processes = append(b.processes, a)
	}
	return a
}

var errFull = errors.New("tracing/otlp: a process has more series or instruments than the master keeps: new ones are left out")

// receive takes in what a process says. One round of it may come in several parts; a
// level that neither of the last two rounds has said anything of is gone.
func (a *processMetrics) receive(round int64, said []metric) {
	b := a.aggregator
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if a.sums == nil {
		return // it is closed
	}
	if round != a.round {
		a.previousRound, a.round = a.round, round
		for key, l := range a.levels {
			if l.round != a.previousRound {
				a.size -= cost(metric{instrument: key.instrument}, l.dataPoint)
				delete(a.levels, key)
			}
		}
	}
	for _, m := range said {
		for _, p := range m.points {
			key := seriesKey{m.instrument, p.labels.Equivalent()}
			if m.kind == counter || m.kind == histogram {
				a.addGrowth(key, m, p)
			} else if l := a.levels[key]; l != nil {
				*l = levelValue{p, round}
			} else if a.admit(&key, m, p) {
				a.levels[key] = &levelValue{p, round}
			}
		}
	}
}

// admit makes room for a new series, whose key has the known instrument then, or says
// that there is none.
func (a *processMetrics) admit(key *seriesKey, m metric, p dataPoint) bool {
	n := cost(m, p)
	if len(a.sums)+len(a.levels) >= processSeries || a.size+n > processBytes || !a.aggregator.intern(key, m) {
		if !a.full {
			a.full = true
			otel.Handle(errFull)
		}
		return false
	}
	a.size += n
	return true
}

// addGrowth adds to the sum what a series has grown by.
func (a *processMetrics) addGrowth(key seriesKey, m metric, p dataPoint) {
	old := a.sums[key]
	if old == nil {
		if !a.admit(&key, m, p) {
			return
		}
		old = &dataPoint{labels: p.labels, bounds: p.bounds, buckets: make([]uint64, len(p.buckets))}
		a.sums[key] = old
	}
	// Bounds change when a part of the process makes the instrument anew, with others.
	bounds := commonBounds(old.bounds, p.bounds)
	old.buckets, p.buckets = regroup(old.bounds, old.buckets, bounds), regroup(p.bounds, p.buckets, bounds)
	old.bounds, p.bounds = bounds, bounds
	grown := dataPoint{labels: p.labels, n: max(p.n-old.n, 0), f: max(p.f-old.f, 0), float: p.float, bounds: p.bounds}
	old.n, old.f = max(old.n, p.n), max(old.f, p.f)
	for i, n := range p.buckets {
		n = max(min(n, maxCount), old.buckets[i])
		grown.buckets = append(grown.buckets, n-old.buckets[i])
		old.buckets[i] = n
	}
	old.exemplars = p.exemplars
	a.aggregator.add(key, m, grown)
}

// intern puts the instrument of a key as it was heard first. One that is new has to find
// room for its texts.
func (b *aggregator) intern(key *seriesKey, m metric) bool {
	h, known := b.known[m.instrument]
	if !known {
		n := m.textSize()
		if b.textSize+n > textBytes {
			return false
		}
		b.textSize += n
		h = knownInstrument{m.instrument, m.description}
		b.known[m.instrument] = h
	}
	key.instrument = h.instrument
	return true
}

// overflow is the series of what found no room, by OpenTelemetry's specification.
var overflow = attribute.NewSet(attribute.Bool("otel.metric.overflow", true))

// add adds to a sum. A series that is new where there is no more room is added to
// that of the overflow.
func (b *aggregator) add(key seriesKey, m metric, grown dataPoint) {
	s := b.sums[key]
	if s == nil {
		n := cost(m, grown)
		if len(b.sums) >= treeSeries || b.size+n > treeBytes {
			grown.labels = overflow
			key.labels = overflow.Equivalent()
			if s = b.sums[key]; s == nil && len(b.sums) >= treeSeries+overflowSeries {
				return
			}
		}
		if s == nil {
			b.sums[key] = &grown
			b.size += n
			return
		}
	}
	addPoint(s, grown)
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

// saturatingAdd adds without going around.
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

// commonBounds returns the bounds that both have. At those, what both have counted is
// known: a release that has other buckets than the one before does no harm to sums.
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

// regroup puts the counts into the buckets of some of their bounds.
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

// close ends an account. A level ends with its process.
func (a *processMetrics) close() {
	if a.aggregator == nil {
		return
	}
	a.aggregator.mu.Lock()
	defer a.aggregator.mu.Unlock()
	a.aggregator.processes = slices.DeleteFunc(a.aggregator.processes, func(other *processMetrics) bool { return other == a })
	a.sums, a.levels = nil, nil
}

// total returns the sum of everything, in no order.
func (b *aggregator) total() []metric {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := make(map[seriesKey]*dataPoint, len(b.sums))
	for key, s := range b.sums {
		p := *s
		p.buckets = slices.Clone(s.buckets)
		all[key] = &p
	}
	for _, a := range b.processes {
		for key, l := range a.levels {
			p := l.dataPoint
			if key.kind == gauge { // of two that have one name, the younger holds it
				p.labels = attribute.NewSet(append(p.labels.ToSlice(), tracing.KeyActorPath.String(a.process))...)
				key.labels = p.labels.Equivalent()
				all[key] = &p
			} else if s := all[key]; s != nil {
				addPoint(s, p)
			} else {
				all[key] = &p
			}
		}
		for key, p := range a.sums {
			if s := all[key]; s != nil { // else it is in the overflow
				s.exemplars = append(s.exemplars, p.exemplars...)
			}
		}
	}
	by := make(map[instrument]*metric)
	for key, p := range all {
		m := by[key.instrument]
		if m == nil {
			m = &metric{instrument: key.instrument, description: b.known[key.instrument].description}
			by[key.instrument] = m
		}
		m.points = append(m.points, *p)
	}
	metrics := make([]metric, 0, len(by))
	for _, m := range by {
		metrics = append(metrics, *m)
	}
	return metrics
}
