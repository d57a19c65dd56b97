package tracing

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// InstrumentKind is how the values of an instrument add up over processes.
type InstrumentKind uint8

// The kinds of [Instrument].
const (
	Sum          InstrumentKind = iota // only grows; the counts of a process that has ended stay
	Level                              // goes up and down; the sum over live processes
	Duration                           // a histogram of seconds, with Bounds
	LongDuration                       // with LongBounds
	Seconds                            // a Sum whose values are nanoseconds, and are shown as seconds
	LevelSeconds                       // a Level of which that holds
)

// Instrument is one row of the table in instruments.go: what is counted, in OpenTelemetry's words.
type Instrument struct {
	Name        string
	Unit        string // UCUM
	Kind        InstrumentKind
	Description string
}

// Bounds are the upper bounds of a Duration's buckets, in seconds. There is one more bucket
// above the last.
var Bounds = []float64{50e-6, 100e-6, 250e-6, 500e-6, 1e-3, 2.5e-3, 5e-3, 10e-3, 50e-3, 100e-3, 1}

// LongBounds are those of a LongDuration, as many.
var LongBounds = []float64{1e-3, 5e-3, 10e-3, 50e-3, 100e-3, 500e-3, 1, 5, 10, 60, 600}

// nanoBounds are bounds in nanoseconds.
type nanoBounds [11]int64

var boundsNano, longBoundsNano = inNano(Bounds), inNano(LongBounds)

func inNano(bounds []float64) *nanoBounds {
	b := new(nanoBounds)
	for i, s := range bounds {
		b[i] = int64(s * 1e9)
	}
	return b
}

// Bounds returns the bounds of the buckets of a histogram; nil if i is none.
func (i *Instrument) Bounds() []float64 {
	switch i.Kind {
	case Duration:
		return Bounds
	case LongDuration:
		return LongBounds
	case Sum, Level, Seconds, LevelSeconds:
	}
	return nil
}

// Meter counts for Coppice in one process. A nil *Meter is off. Its methods may be
// called by any goroutine.
//
// It is not OpenTelemetry's Meter: a connection's counter and two histograms cost less than
// 100 ns and no allocation here, and 900 ns with the SDK's instruments.
type Meter struct {
	mu      sync.Mutex
	series  map[seriesID]*series
	order   []*series
	watched []*func(func(*Instrument, int64, ...attribute.KeyValue))
}

type seriesID struct {
	instrument *Instrument
	labels     attribute.Distinct
}

// series is one instrument with one set of attributes.
type series struct {
	instrument *Instrument
	labels     attribute.Set
	counter    Counter
	histogram  *Histogram
}

// NewMeter returns a meter that has counted nothing yet.
func NewMeter() *Meter { return &Meter{series: make(map[seriesID]*series)} }

// Counter returns the counter of a Sum or a Level with these attributes, the same one each
// time. Keep it if it is needed often. The counter of a nil Meter is nil, which is off.
func (m *Meter) Counter(i *Instrument, labels ...attribute.KeyValue) *Counter {
	if m == nil {
		return nil
	}
	return &m.find(i, labels).counter
}

// Histogram is Counter for a Duration or LongDuration.
func (m *Meter) Histogram(i *Instrument, labels ...attribute.KeyValue) *Histogram {
	if m == nil {
		return nil
	}
	return m.find(i, labels).histogram
}

func (m *Meter) find(i *Instrument, labels []attribute.KeyValue) *series {
	set := attribute.NewSet(labels...)
	key := seriesID{i, set.Equivalent()}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.series[key]
	if s == nil {
		s = &series{instrument: i, labels: set}
		switch i.Kind {
		case Duration:
			s.histogram = &Histogram{bounds: boundsNano}
		case LongDuration:
			s.histogram = &Histogram{bounds: longBoundsNano}
		case Sum, Level, Seconds, LevelSeconds:
		}
		m.series[key] = s
		m.order = append(m.order, s)
	}
	return s
}

// Watch has f called at each Collect, to emit values that are counted elsewhere: the whole
// of a Sum so far, or a Level. Values that are emitted for the same attributes are added
// up. f runs on the goroutine that collects; it must neither block nor use m. stop ends that, but
// for a Collect that is under way. Any goroutine may call it.
func (m *Meter) Watch(f func(emit func(i *Instrument, value int64, labels ...attribute.KeyValue))) (stop func()) {
	if m == nil {
		return func() {}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watched = append(m.watched, &f)
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.watched = slices.DeleteFunc(m.watched, func(o *func(func(*Instrument, int64, ...attribute.KeyValue))) bool { return o == &f })
	}
}

// DataPoint is the value of one series.
type DataPoint struct {
	Instrument *Instrument
	Labels     attribute.Set
	Value      int64 // of a Sum or a Level

	// Of a Duration or LongDuration.
	Buckets   []uint64 // one more than its bounds
	Total     time.Duration
	Exemplars []Exemplar
}

// Exemplar is a value that was measured in a trace.
type Exemplar struct {
	Value time.Duration
	At    time.Time
	Span  trace.SpanContext
}

// Collect returns everything counted so far. A nil Meter has nothing.
func (m *Meter) Collect() []DataPoint {
	if m == nil {
		return nil
	}
	m.mu.Lock()
	order, watched := slices.Clone(m.order), slices.Clone(m.watched)
	m.mu.Unlock()

	points := make([]DataPoint, 0, len(order))
	for _, s := range order {
		p := DataPoint{Instrument: s.instrument, Labels: s.labels, Value: s.counter.n.Load()}
		if s.histogram != nil {
			s.histogram.read(&p)
		}
		points = append(points, p)
	}
	seen := make(map[seriesID]int)
	for _, f := range watched {
		(*f)(func(i *Instrument, value int64, labels ...attribute.KeyValue) {
			set := attribute.NewSet(labels...)
			key := seriesID{i, set.Equivalent()}
			if at, ok := seen[key]; ok {
				points[at].Value += value
				return
			}
			seen[key] = len(points)
			points = append(points, DataPoint{Instrument: i, Labels: set, Value: value})
		})
	}
	return points
}

// Counter is one number. A nil *Counter is off.
type Counter struct{ n atomic.Int64 }

// Add adds n, which is negative for a Level only.
func (c *Counter) Add(n int64) {
	if c != nil {
		c.n.Add(n)
	}
}

// Histogram is a distribution of durations. A nil *Histogram is off.
type Histogram struct {
	bounds    *nanoBounds
	buckets   [len(nanoBounds{}) + 1]atomic.Uint64
	total     atomic.Int64 // ns
	exemplars [len(nanoBounds{}) + 1]atomic.Pointer[Exemplar]
}

// Record adds d. The context of a sampled span makes d the exemplar of its bucket.
func (h *Histogram) Record(d time.Duration, s Span) {
	if h == nil {
		return
	}
	i := 0
	for i < len(h.bounds) && int64(d) > h.bounds[i] {
		i++
	}
	h.buckets[i].Add(1)
	h.total.Add(int64(d))
	if s.Sampled() {
		h.exemplars[i].Store(&Exemplar{Value: d, At: time.Now(), Span: s.Context()})
	}
}

func (h *Histogram) read(p *DataPoint) {
	p.Buckets = make([]uint64, len(h.buckets))
	for i := range h.buckets {
		p.Buckets[i] = h.buckets[i].Load()
		if e := h.exemplars[i].Load(); e != nil {
			p.Exemplars = append(p.Exemplars, *e)
		}
	}
	p.Total = time.Duration(h.total.Load())
}
