package otlp

import (
	"errors"
	"slices"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/tracing"
)

// Bounds on the metrics that the master keeps. The bytes are those of names, attributes and
// buckets.
const (
	processSeries  = 4 << 10 // of one child
	processBytes   = 2 << 20
	coppiceSeries  = 512 // beyond both, for Coppice's own instruments
	coppiceBytes   = 256 << 10
	treeSeries     = 16 << 10 // of the whole tree, over all its children that ever were
	treeBytes      = 16 << 20
	overflowSeries = 256     // beyond treeSeries, for the series of the overflow
	textBytes      = 4 << 20 // of the texts of all instruments that ever were
)

// aggregator adds up what the processes of the tree count. Each process sends the whole of its
// counts each time, so a lost payload loses nothing. The growth of a series since the payload
// before is added to its sum, so a sum cannot go back, whatever a child sends and whenever it ends.
type aggregator struct {
	mu        sync.Mutex
	processes []*processMetrics // of live processes, the youngest last
	sums      map[seriesKey]*dataPoint
	size      int
	known     map[instrument]knownInstrument
	textSize  int // of known, in bytes
}

// knownInstrument is an instrument as it was first received. All series refer to these
// strings, so that they are kept once.
type knownInstrument struct {
	instrument
	description string
}

func newAggregator() *aggregator {
	return &aggregator{sums: make(map[seriesKey]*dataPoint), known: make(map[instrument]knownInstrument)}
}

// processMetrics is what one process has counted, as it was last received.
type processMetrics struct {
	aggregator *aggregator // nil when metrics are off
	process    string      // its path

	sums   map[seriesKey]*dataPoint  // of counters and histograms: the highest values received
	levels map[seriesKey]*levelValue // of levels and gauges
	size   int
	full   bool // errFull was reported

	round, previousRound int64 // of the newest values, and of the values before them
}

// levelValue is the value of a level or gauge, and the round it was received in.
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

// receive adds metrics of a process. One round may come in several parts. A level that was
// in neither of the last two rounds is gone.
func (a *processMetrics) receive(round int64, metrics []metric) {
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
	for _, m := range metrics {
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

// admit reports whether there is room for a new series, and then puts the known instrument
// into its key.
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

// addGrowth adds the growth of a series to its sum.
func (a *processMetrics) addGrowth(key seriesKey, m metric, p dataPoint) {
	old := a.sums[key]
	if old == nil {
		if !a.admit(&key, m, p) {
			return
		}
		old = &dataPoint{labels: p.labels, bounds: p.bounds, buckets: make([]uint64, len(p.buckets))}
		a.sums[key] = old
	}
	// Bounds change when a part of the process makes the instrument again, with others.
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

// intern puts the known instrument into a key. It returns false if there is no room for the
// texts of a new one.
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

// overflow is the series for values without room, by OpenTelemetry's specification.
var overflow = attribute.NewSet(attribute.Bool("otel.metric.overflow", true))

// add adds to a sum. If there is no room for a new series, its values are added to the overflow.
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

// close removes the process: its levels end, its sums stay.
func (a *processMetrics) close() {
	if a.aggregator == nil {
		return
	}
	a.aggregator.mu.Lock()
	defer a.aggregator.mu.Unlock()
	a.aggregator.processes = slices.DeleteFunc(a.aggregator.processes, func(other *processMetrics) bool { return other == a })
	a.sums, a.levels = nil, nil
}

// total returns the sums over all processes, in no order.
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
			if key.kind == gauge { // of two processes with one name, the younger has it
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
			if s := all[key]; s != nil { // else the series is in the overflow
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
