package otlp

import (
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/tracing"
)

// Bounds on what one child can make the master keep.
const (
	maxPoints = 512     // series of one child
	maxLabels = 8       // attributes of a series
	maxLabel  = 256     // bytes of a key or a value
	maxSeries = 8 << 10 // series of the whole tree
)

// books add up what the processes of the tree have counted. A child sends the
// whole of its counts each time, so a payload that is lost loses nothing, and
// what a child had counted when it ended is carried over: sums never go back.
type books struct {
	own *tracing.Meter // the master's

	mu       sync.Mutex
	accounts map[*account]struct{} // of children that live
	past     map[pointKey]tracing.Point
}

type pointKey struct {
	instrument *tracing.Instrument
	labels     attribute.Distinct
}

func newBooks(own *tracing.Meter) *books {
	return &books{own: own, accounts: make(map[*account]struct{}), past: make(map[pointKey]tracing.Point)}
}

// account is what one child has counted, as it said last.
type account struct {
	books  *books // nil when metrics are off
	points []tracing.Point
}

func (b *books) open() *account {
	a := &account{books: b}
	if b != nil {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.accounts[a] = struct{}{}
	}
	return a
}

func (a *account) receive(payload []byte) error {
	points, err := readPoints(payload)
	if err != nil || a.books == nil {
		return err
	}
	a.books.mu.Lock()
	defer a.books.mu.Unlock()
	if _, live := a.books.accounts[a]; live {
		a.points = points
	}
	return nil
}

// close carries over what only grows. A level ends with its process.
func (a *account) close() {
	b := a.books
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, live := b.accounts[a]; !live {
		return
	}
	delete(b.accounts, a)
	for _, p := range a.points {
		if p.Instrument.Kind != tracing.Level {
			p.Exemplars = nil // of a process that is gone
			add(b.past, p)
		}
	}
}

// total returns the sum of everything.
func (b *books) total() []tracing.Point {
	own := b.own.Collect()
	b.mu.Lock()
	defer b.mu.Unlock()
	sum := make(map[pointKey]tracing.Point, len(b.past))
	for _, p := range b.past {
		add(sum, p)
	}
	for a := range b.accounts {
		for _, p := range a.points {
			add(sum, p)
		}
	}
	for _, p := range own {
		add(sum, p)
	}
	points := make([]tracing.Point, 0, len(sum))
	for _, p := range sum {
		points = append(points, p)
	}
	return points
}

// add adds p to its series. Beyond maxSeries a series that is new is left out.
func add(sum map[pointKey]tracing.Point, p tracing.Point) {
	key := pointKey{p.Instrument, p.Labels.Equivalent()}
	q, ok := sum[key]
	if !ok {
		if len(sum) >= maxSeries {
			return
		}
		p.Buckets = append([]uint64(nil), p.Buckets...)
		sum[key] = p
		return
	}
	q.Value += p.Value
	q.Total += p.Total
	for i, n := range p.Buckets {
		q.Buckets[i] += n
	}
	q.Exemplars = append(q.Exemplars[:len(q.Exemplars):len(q.Exemplars)], p.Exemplars...)
	sum[key] = q
}

// wirePoint is a point as it travels. Payloads are few, one a second for each
// child, so they are JSON.
type wirePoint struct {
	Name      string            `json:"n"`
	Labels    map[string]string `json:"l,omitempty"`
	Value     int64             `json:"v,omitempty"`
	Buckets   []uint64          `json:"b,omitempty"`
	Total     int64             `json:"t,omitempty"`
	Exemplars []wireExemplar    `json:"x,omitempty"`
}

type wireExemplar struct {
	Value int64  `json:"v"`
	At    int64  `json:"at"`
	Span  []byte `json:"s"` // a carrier
}

var instruments = func() map[string]*tracing.Instrument {
	m := make(map[string]*tracing.Instrument)
	for _, i := range tracing.Instruments {
		m[i.Name] = i
	}
	return m
}()

// writePoints is the payload of what a process has counted so far.
func writePoints(points []tracing.Point) ([]byte, error) {
	wire := make([]wirePoint, 0, len(points))
	for _, p := range points {
		w := wirePoint{Name: p.Instrument.Name, Value: p.Value, Buckets: p.Buckets, Total: int64(p.Total)}
		if p.Labels.Len() > 0 {
			w.Labels = make(map[string]string, p.Labels.Len())
			for it := p.Labels.Iter(); it.Next(); {
				kv := it.Attribute()
				w.Labels[string(kv.Key)] = kv.Value.String()
			}
		}
		for _, e := range p.Exemplars {
			c := tracing.Encode(e.Span)
			w.Exemplars = append(w.Exemplars, wireExemplar{int64(e.Value), e.At.UnixNano(), c[:]})
		}
		wire = append(wire, w)
	}
	return json.Marshal(wire)
}

// readPoints is the inverse, for bytes of a child, which is not trusted: what this
// release does not know is left out, what is out of bounds is an error.
func readPoints(payload []byte) ([]tracing.Point, error) {
	bad := func(why string) ([]tracing.Point, error) {
		return nil, fmt.Errorf("%w: metrics: %s", tracing.ErrPayload, why)
	}
	var wire []wirePoint
	if err := json.Unmarshal(payload, &wire); err != nil {
		return bad(err.Error())
	}
	if len(wire) > maxPoints {
		return bad("too many series")
	}
	points := make([]tracing.Point, 0, len(wire))
	for _, w := range wire {
		p := tracing.Point{Instrument: instruments[w.Name], Value: w.Value, Buckets: w.Buckets, Total: time.Duration(w.Total)}
		if p.Instrument == nil {
			continue
		}
		want := 0
		if p.Instrument.Kind == tracing.Duration {
			want = len(tracing.Bounds) + 1
		}
		if p.Instrument.Kind != tracing.Level && (w.Value < 0 || w.Total < 0) { // sums never go back
			return bad(w.Name)
		}
		if len(w.Buckets) != want || len(w.Exemplars) > want || len(w.Labels) > maxLabels {
			return bad(w.Name)
		}
		var labels []attribute.KeyValue
		for k, v := range w.Labels {
			if len(k) > maxLabel || len(v) > maxLabel {
				return bad(w.Name)
			}
			labels = append(labels, attribute.String(k, v))
		}
		p.Labels = attribute.NewSet(labels...)
		for _, e := range w.Exemplars {
			var c [tracing.Size]byte
			if copy(c[:], e.Span) != tracing.Size || !tracing.Decode(c).IsValid() {
				return bad(w.Name)
			}
			p.Exemplars = append(p.Exemplars, tracing.Exemplar{
				Value: time.Duration(e.Value), At: time.Unix(0, e.At), Span: trace.SpanContext(tracing.Decode(c)),
			})
		}
		points = append(points, p)
	}
	return points, nil
}
