package otlp

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
)

// valueOf returns the value of a series that has one attribute, or none.
func valueOf(b *aggregator, name, label string) (found dataPoint, ok bool) {
	for _, m := range b.total() {
		for _, p := range m.points {
			value := ""
			if p.labels.Len() > 0 {
				kv, _ := p.labels.Get(0)
				value = kv.Value.String()
			}
			if m.name == name && value == label {
				return p, true
			}
		}
	}
	return dataPoint{}, false
}

func orders(n int64) []metric {
	return []metric{{instrument: instrument{name: "orders"}, points: []dataPoint{{n: n}}}}
}

// FuzzAggregator: each two bytes are what a process does: it counts, says what it has
// counted, says less than that, dies, or is begun. The sum is what all have said, each
// at its most, whoever lives, and it never goes back.
func FuzzAggregator(f *testing.F) {
	f.Add([]byte{0, 0, 1, 5, 1, 9, 3, 0, 0, 0, 1, 2, 2, 1, 4, 0})
	f.Add([]byte{0, 0, 0, 0, 1, 200, 17, 200, 2, 7, 18, 7, 3, 0, 19, 0, 1, 1})
	f.Fuzz(func(t *testing.T, ops []byte) {
		b := newAggregator()
		var accounts []*processMetrics
		var most []int64
		before := int64(0)
		for i := 0; i+1 < len(ops) && i < 400; i += 2 {
			what, n := ops[i]%5, int64(ops[i+1])
			if what == 0 || len(accounts) == 0 {
				accounts, most = append(accounts, b.open("web/0")), append(most, 0)
				continue
			}
			at := int(ops[i]/5) % len(accounts)
			switch a := accounts[at]; what {
			case 1, 2: // 2 is less than before, as a rule
				if what == 1 {
					n += most[at]
				}
				if a.sums != nil {
					most[at] = max(most[at], n)
				}
				a.receive(int64(i), orders(n))
			case 3:
				a.close()
			case 4:
				a.receive(int64(i), []metric{{instrument: instrument{name: "busy", kind: level}, points: []dataPoint{{n: n}}}})
			}
			want := int64(0)
			for _, n := range most {
				want += n
			}
			got, _ := valueOf(b, "orders", "")
			if got.n != want || got.n < before {
				t.Fatalf("after step %d the sum is %d, and was %d; want %d", i/2, got.n, before, want)
			}
			before = got.n
		}
	})
}

// What a child says may be anything that readInstruments takes. No sum goes back, or
// around.
func TestSumsStayAtTheirBounds(t *testing.T) {
	b := newAggregator()
	said := func(n int64, f float64, bucket uint64) []metric {
		return []metric{
			{instrument: instrument{name: "n"}, points: []dataPoint{{n: n}}},
			{instrument: instrument{name: "f"}, points: []dataPoint{{f: f, float: true}}},
			{instrument: instrument{name: "h", kind: histogram}, points: []dataPoint{{f: f, float: true, bounds: []float64{1}, buckets: []uint64{bucket, 1}}}},
		}
	}
	for range 3 {
		a := b.open("web/0")
		a.receive(1, said(math.MaxInt64, math.MaxFloat64, math.MaxUint64))
		a.receive(2, said(1, 1, 1))
		a.close()
	}
	if p, _ := valueOf(b, "n", ""); p.n != math.MaxInt64 {
		t.Errorf("n is %d", p.n)
	}
	if p, _ := valueOf(b, "f", ""); p.f != math.MaxFloat64 {
		t.Errorf("f is %g", p.f)
	}
	if p, _ := valueOf(b, "h", ""); !slices.Equal(p.buckets, []uint64{maxCount, 3}) {
		t.Errorf("buckets %v", p.buckets)
	}
}

// A level is the sum of those that live, a gauge that of the youngest with the name,
// and both are gone when they are no longer said.
func TestLevelsAndGauges(t *testing.T) {
	b := newAggregator()
	say := func(a *processMetrics, round, n int64) {
		var said []metric
		for _, k := range []kind{level, gauge} {
			said = append(said, metric{instrument: instrument{name: fmt.Sprint(k), kind: k}, points: []dataPoint{{n: n}}})
		}
		a.receive(round, said)
	}
	level, gauge := fmt.Sprint(level), fmt.Sprint(gauge)
	old, other := b.open("web/0"), b.open("web/1")
	say(old, 1, 5)
	say(other, 1, 7)
	young := b.open("web/0") // a reload: both live for a while
	say(young, 1, 100)
	want := func(when string, sum, first, second int64) {
		t.Helper()
		l, _ := valueOf(b, level, "")
		g0, _ := valueOf(b, gauge, "web/0")
		g1, _ := valueOf(b, gauge, "web/1")
		if l.n != sum || g0.n != first || g1.n != second {
			t.Errorf("%s: the level is %d, the gauges %d and %d; want %d, %d, %d", when, l.n, g0.n, g1.n, sum, first, second)
		}
	}
	want("two of a name", 112, 100, 7)
	old.close()
	want("one has ended", 107, 100, 7)
	other.receive(2, orders(1))
	want("a round without", 107, 100, 7) // the other part of a round may still come
	other.receive(3, orders(2))
	want("two rounds without", 100, 100, 0)
}

// A release counts in other buckets than the one before: what both know stays.
func TestOtherBuckets(t *testing.T) {
	b := newAggregator()
	say := func(bounds []float64, buckets []uint64) {
		a := b.open("web/0")
		a.receive(1, []metric{{instrument: instrument{name: "h", kind: histogram}, points: []dataPoint{{f: 10, float: true, bounds: bounds, buckets: buckets}}}})
		a.close()
	}
	say([]float64{1, 2, 5, 10}, []uint64{1, 2, 4, 8, 16})
	say([]float64{2, 3, 10}, []uint64{100, 200, 400, 800})
	p, _ := valueOf(b, "h", "")
	if !slices.Equal(p.bounds, []float64{2, 10}) || !slices.Equal(p.buckets, []uint64{103, 612, 816}) || p.f != 20 {
		t.Errorf("bounds %v, buckets %v, sum %v", p.bounds, p.buckets, p.f)
	}
}

// A histogram whose buckets change while its process lives goes on counting, at the
// bounds that stay.
func TestOtherBucketsOfOneProcess(t *testing.T) {
	b := newAggregator()
	a := b.open("web/0")
	for round, p := range []dataPoint{
		{f: 3, float: true, bounds: []float64{1, 10}, buckets: []uint64{1, 1, 1}},
		{f: 9, float: true, bounds: []float64{2, 10}, buckets: []uint64{2, 3, 1}},
		{f: 12, float: true, bounds: []float64{1, 10}, buckets: []uint64{3, 3, 2}},
	} {
		a.receive(int64(round), []metric{{instrument: instrument{name: "weight", kind: histogram}, points: []dataPoint{p}}})
	}
	p := b.total()[0].points[0]
	if !reflect.DeepEqual(p.bounds, []float64{10}) || !reflect.DeepEqual(p.buckets, []uint64{6, 2}) || p.f != 12 {
		t.Errorf("%v at %v, %v in all", p.buckets, p.bounds, p.f)
	}
}

// Children that invent instruments cost what has its bound, too, and those that were
// known before count on.
func TestInstrumentsBeyondTheBounds(t *testing.T) {
	b := newAggregator()
	long := strings.Repeat("x", maxInstrumentText)
	b.open("web/1").receive(1, orders(1))
	for child := range 5 {
		var said []metric
		for i := range processSeries {
			said = append(said, metric{
				instrument: instrument{scope{long, long, long}, fmt.Sprintf("m%d.%d", child, i), long, kind(i % 2)}, description: long,
				points: []dataPoint{{n: 1}},
			})
		}
		a := b.open("web/0")
		a.receive(1, said)
		a.close()
	}
	b.open("web/2").receive(1, orders(1))
	bytes := 0
	for _, m := range b.total() {
		bytes += m.textSize()
	}
	for i := range b.known {
		bytes += metric{instrument: i}.textSize()
	}
	if bytes > 2*textBytes {
		t.Errorf("%d instruments have %d bytes of text", len(b.known), bytes)
	}
	if p, _ := valueOf(b, "orders", ""); p.n != 2 {
		t.Errorf("%d orders", p.n)
	}
}

// Children that invent series cost what has its bound, and their counts stay counted.
func TestSeriesBeyondTheBounds(t *testing.T) {
	b := newAggregator()
	next := 0
	invent := func(a *processMetrics, n int) {
		m := metric{instrument: instrument{name: "orders"}}
		for range n {
			m.points = append(m.points, dataPoint{labels: attribute.NewSet(attribute.Int("at", next)), n: 1})
			next++
		}
		a.receive(1, []metric{m})
	}
	const children = treeSeries/processSeries + 1 // one more than find room
	for range children {
		a := b.open("web/0")
		invent(a, processSeries+10)
		if n := len(a.sums); n != processSeries {
			t.Fatalf("an account of %d series, want %d", n, processSeries)
		}
		a.close()
	}
	a := b.open("web/0")
	invent(a, 100)
	series := len(b.sums)
	invent(a, 100)
	if len(b.sums) != series || series != treeSeries+1 {
		t.Errorf("%d series, then %d", series, len(b.sums))
	}
	if p, ok := valueOf(b, "orders", "true"); !ok || p.n != processSeries+200 || !reflect.DeepEqual(p.labels.ToSlice(), overflow.ToSlice()) {
		t.Errorf("the overflow is %d, with %v", p.n, p.labels)
	}
	if b.size > treeBytes {
		t.Errorf("%d bytes", b.size)
	}
}
