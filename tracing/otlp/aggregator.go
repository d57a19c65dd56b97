package otlp

import (
	"errors"
	"slices"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/tracing"
)

// Bounds on what the master keeps of what others have counted. The bytes are those
// of names, attributes and buckets.
const (
	processSeries  = 4 << 10 // of one child
	processBytes   = 2 << 20
	coppiceSeries  = 512 // beyond both, for Coppice's own instruments
	coppiceBytes   = 256 << 10
	treeSeries     = 16 << 10 // of the whole tree, over all its children that ever were
	treeBytes      = 16 << 20
	overflowSeries = 256     // beyond bookSeries, for what did not find room
	textBytes      = 4 << 20 // of the texts of all instruments that ever were
)

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
	n, series, bytes := cost(m, p), processSeries, processBytes
	if m.scope == coppiceScope {
		series, bytes = series+coppiceSeries, bytes+coppiceBytes
	}
	if len(a.sums)+len(a.levels) >= series || a.size+n > bytes || !a.aggregator.intern(key, m) {
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
