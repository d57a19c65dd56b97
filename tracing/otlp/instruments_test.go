package otlp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	promclient "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	otelmetric "go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	"google.golang.org/protobuf/proto"

	"github.com/coppice-go/coppice/tracing"
	"github.com/coppice-go/coppice/tracing/otlp/otlptest"
)

// shop counts as a program does, by OpenTelemetry's API alone.
type shop struct {
	orders  otelmetric.Int64Counter
	revenue otelmetric.Float64Counter
	open    otelmetric.Int64UpDownCounter
	weight  otelmetric.Float64Histogram
	heat    otelmetric.Float64Gauge
}

func newShop(t *testing.T, p otelmetric.MeterProvider) (s shop) {
	t.Helper()
	m := p.Meter("example.com/shop", otelmetric.WithInstrumentationVersion("1.2"))
	var errs [6]error
	s.orders, errs[0] = m.Int64Counter("shop.orders", otelmetric.WithUnit("{order}"), otelmetric.WithDescription("Orders taken."))
	s.revenue, errs[1] = m.Float64Counter("shop.revenue", otelmetric.WithUnit("EUR"))
	s.open, errs[2] = m.Int64UpDownCounter("shop.open")
	s.weight, errs[3] = m.Float64Histogram("shop.weight", otelmetric.WithUnit("kg"), otelmetric.WithExplicitBucketBoundaries(1, 10))
	s.heat, errs[4] = m.Float64Gauge("shop.heat", otelmetric.WithUnit("Cel"))
	_, errs[5] = m.Int64ObservableCounter("shop.turns", otelmetric.WithInt64Callback(func(_ context.Context, o otelmetric.Int64Observer) error {
		o.Observe(40)
		return nil
	}))
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s shop) order(ctx context.Context, kg float64) {
	card := otelmetric.WithAttributes(attribute.String("card", "visa"), attribute.Int("tier", 2), attribute.Bool("new", true))
	s.orders.Add(ctx, 1, card)
	s.revenue.Add(ctx, 2.5)
	s.open.Add(ctx, 1)
	s.weight.Record(ctx, kg)
	s.heat.Record(ctx, kg)
}

func scrapeText(accept string) (int, string) {
	w, req := httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil)
	req.Header.Set("Accept", accept)
	PrometheusHandler().ServeHTTP(w, req)
	return w.Code, w.Body.String()
}

// The same instruments in the master and two workers are one metric, with the sums
// of all, also once a worker has ended.
func TestInstrumentsOfTheProgram(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	master := start(t, masterProcess, nil)
	inMaster := newShop(t, master.(*pipeline).programMeters)
	inMaster.order(t.Context(), 5)
	sampled := tracing.New(master.TracerProvider()).Accept(tracing.AcceptSpan{})
	traced := trace.ContextWithSpanContext(t.Context(), sampled.Context())
	var children []tracing.ChildTelemetry
	for i := range 2 {
		process := workerProcess
		process.Name = fmt.Sprintf("web/%d", i)
		c := master.Adopt(process)
		worker := start(t, process, uplink(c))
		s := newShop(t, worker.(*pipeline).programMeters)
		s.order(traced, 0.5)
		s.order(traced, float64(20+i))
		shutdown(t, worker) // sends a last time
		children = append(children, c)
	}
	for _, row := range []struct {
		end  int // this child ends first; or none
		want []string
	}{
		{-1, []string{`shop_open 5`, `shop_heat_celsius{coppice_actor_path="web/0"} 20`}},
		{0, []string{`shop_open 3`}},
		{1, []string{`shop_open 1`, `shop_heat_celsius{coppice_actor_path="master"} 5`}},
	} {
		if row.end >= 0 {
			children[row.end].Ended(killed)
		}
		code, got := scrapeText("text/plain")
		for _, want := range append(row.want,
			"# HELP shop_orders_total Orders taken.",
			`shop_orders_total{card="visa",new="true",tier="2"} 5`,
			"shop_revenue_EUR_total 12.5",
			`shop_weight_kg_bucket{le="1"} 2`,
			`shop_weight_kg_bucket{le="10"} 3`,
			"shop_weight_kg_count 5",
			"shop_weight_kg_sum 47",
			"shop_turns_total 120",
		) {
			if code != 200 || !strings.Contains(got, want+"\n") {
				t.Errorf("child %d has ended: a scrape (%d) lacks %s\n%s", row.end, code, want, got)
			}
		}
		if gone := fmt.Sprintf(`"web/%d"`, row.end); strings.Contains(got, gone) {
			t.Errorf("a gauge of %s, which has ended", gone)
		}
	}
	shutdown(t, master)
	points := map[string]int{}
	for _, m := range r.Metrics() {
		points[m.Name]++
		switch m.Name {
		case "shop.orders":
			if m.Value != 5 || !m.Monotonic || m.Unit != "{order}" || m.Attributes["tier"] != "2" {
				t.Errorf("by OTLP: %+v", m)
			}
		case "shop.weight":
			if m.Count != 5 || m.Value != 47 {
				t.Errorf("by OTLP: %+v", m)
			}
		}
	}
	for _, name := range []string{"shop.orders", "shop.revenue", "shop.open", "shop.weight", "shop.heat", "shop.turns"} {
		if points[name] != 1 {
			t.Errorf("%d points of %s by OTLP, want 1", points[name], name)
		}
	}
}

// An exemplar of a worker that lives is shown.
func TestExemplarOfAWorker(t *testing.T) {
	otlptest.NewReceiver(t).Setenv(t)
	master := start(t, masterProcess, nil)
	worker := start(t, workerProcess, uplink(master.Adopt(workerProcess)))
	sampled := tracing.New(worker.TracerProvider()).Accept(tracing.AcceptSpan{})
	newShop(t, worker.(*pipeline).programMeters).order(trace.ContextWithSpanContext(t.Context(), sampled.Context()), 5)
	shutdown(t, worker)
	if _, got := scrapeText("application/openmetrics-text; version=1.0.0"); !strings.Contains(got, `trace_id="`+sampled.Context().TraceID().String()+`"`) {
		t.Errorf("a scrape without its exemplar:\n%s", got)
	}
}

// What is too much for one payload comes in several, and is the same.
func TestInstrumentsInSeveralPayloads(t *testing.T) {
	var said []metric
	for i := range 10 {
		m := metric{instrument: instrument{scope{"shop", "1", "https://example.com/1"}, fmt.Sprintf("m%d", i), "s", histogram}, description: "d"}
		for n := range 300 {
			m.points = append(m.points, dataPoint{
				labels: attribute.NewSet(attribute.Int("n", n), attribute.Float64("x", 0.5), attribute.StringSlice("many", []string{"a", "b"})),
				f:      float64(n), float: true, bounds: []float64{1, 2, 3, 4, 5}, buckets: []uint64{1, 2, 3, 4, 5, uint64(n)},
			})
		}
		said = append(said, m)
	}
	payloads, err := writeMetrics(said, 42)
	if err != nil {
		t.Fatal(err)
	}
	if len(payloads) < 2 {
		t.Errorf("%d payloads", len(payloads))
	}
	whole, parts := newAggregator(), newAggregator()
	whole.open("web/0").receive(42, said)
	a := parts.open("web/0")
	for _, b := range payloads {
		if len(b) > payloadMax+payloadMax/4 {
			t.Errorf("a payload of %d bytes", len(b))
		}
		round, metrics, err := readMetrics(b)
		if err != nil || round != 42 {
			t.Fatalf("round %d: %v", round, err)
		}
		a.receive(round, metrics)
	}
	if len(whole.sums) != 3000 || len(parts.sums) != 3000 {
		t.Fatalf("%d and %d series", len(whole.sums), len(parts.sums))
	}
	for _, m := range said {
		for _, p := range m.points {
			// A list has become text on the way.
			labels := attribute.NewSet(append(p.labels.ToSlice(), attribute.String("many", `["a","b"]`))...)
			got := parts.sums[seriesKey{m.instrument, labels.Equivalent()}]
			if got == nil || got.f != p.f || !reflect.DeepEqual(got.buckets, p.buckets) {
				t.Fatalf("%s: %+v, want %+v", m.name, got, p)
			}
		}
	}
}

// Wide series go in payloads that the master takes, few to each.
func TestWideSeriesInSeveralPayloads(t *testing.T) {
	m := metric{instrument: instrument{name: "wide", kind: histogram}}
	for n := range 100 {
		p := dataPoint{f: 1, float: true, buckets: make([]uint64, maxBuckets)}
		kvs := []attribute.KeyValue{attribute.Int("n", n)}
		for i := range maxAttributes - 1 {
			kvs = append(kvs, attribute.String(fmt.Sprintf("k%0*d", maxAttributeText-1, i), strings.Repeat("v", maxAttributeText)))
		}
		p.labels = attribute.NewSet(kvs...)
		for i := range maxBuckets - 1 {
			p.bounds = append(p.bounds, float64(i))
		}
		m.points = append(m.points, p)
	}
	said, err := checked([]metric{m})
	if err != nil {
		t.Fatal(err)
	}
	payloads, err := writeMetrics(said, 1)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, b := range payloads {
		_, metrics, err := readMetrics(b)
		if err != nil {
			t.Fatalf("a payload of %d bytes: %v", len(b), err)
		}
		for _, m := range metrics {
			n += len(m.points)
		}
	}
	if n != len(m.points) {
		t.Errorf("%d series, want %d", n, len(m.points))
	}
}

// What cannot be kept is left out where it is counted, with a word, and is refused of
// a child that sends it all the same.
func TestInstrumentsOutOfBounds(t *testing.T) {
	good := metric{instrument: instrument{name: "good"}, points: []dataPoint{{n: 1}}}
	labelled := func(k kind, kvs ...attribute.KeyValue) metric {
		return metric{instrument: instrument{name: "m", kind: k}, points: []dataPoint{{n: 1, labels: attribute.NewSet(kvs...), buckets: []uint64{1}}}}
	}
	var many []attribute.KeyValue
	for i := range maxAttributes + 1 {
		many = append(many, attribute.Int(fmt.Sprint("k", i), i))
	}
	of := func(k kind, p dataPoint) metric {
		return metric{instrument: instrument{name: "m", kind: k}, points: []dataPoint{p}}
	}
	for name, m := range map[string]metric{
		"a name that is none":       {instrument: instrument{name: "1 2"}, points: good.points},
		"a name of ours":            {instrument: instrument{name: "Coppice_handoff.offers"}, points: good.points},
		"a long unit":               {instrument: instrument{name: "m", unit: strings.Repeat("u", maxInstrumentText+1)}, points: good.points},
		"many attributes":           labelled(counter, many...),
		"a long attribute":          labelled(counter, attribute.String("k", strings.Repeat("v", maxAttributeText+1))),
		"an attribute without name": labelled(counter, attribute.String("", "v")),
		"le of a histogram":         labelled(histogram, attribute.String("le", "1")),
		"the path of a gauge":       labelled(gauge, attribute.String("coppice_actor_path", "web/7")),
		"a counter below zero":      of(counter, dataPoint{n: -1}),
		"not a number":              of(gauge, dataPoint{f: math.NaN(), float: true}),
		"no end":                    of(histogram, dataPoint{f: math.Inf(1), buckets: []uint64{1}}),
		"buckets without bounds":    of(histogram, dataPoint{buckets: []uint64{1, 2}}),
		"bounds that fall":          of(histogram, dataPoint{bounds: []float64{2, 1}, buckets: []uint64{1, 2, 3}}),
		"many buckets":              of(histogram, dataPoint{bounds: make([]float64, maxBuckets), buckets: make([]uint64, maxBuckets+1)}),
	} {
		left, err := checked([]metric{m, good})
		if len(left) != 1 || left[0].name != "good" || !errors.Is(err, errInstrument) {
			t.Errorf("%s: %v, and %d are left", name, err, len(left))
		}
		payloads, err := writeMetrics([]metric{m}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := readMetrics(payloads[0]); !errors.Is(err, tracing.ErrPayload) {
			t.Errorf("%s, of a child: %v, want ErrPayload", name, err)
		}
	}
	if _, err := checked([]metric{labelled(counter, attribute.String("k", "\xff"))}); !errors.Is(err, errInstrument) {
		t.Errorf("not UTF-8: %v", err) // which the message cannot hold
	}
	deltas := &metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{{ScopeMetrics: []*metricspb.ScopeMetrics{{Metrics: []*metricspb.Metric{{
		Name: "m", Data: &metricspb.Metric_Sum{Sum: &metricspb.Sum{AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_DELTA}},
	}}}}}}}
	b, err := proto.Marshal(deltas)
	if err != nil {
		t.Fatal(err)
	}
	// They are counted as they come: a set of a thousand costs before it is refused.
	var same []*commonpb.KeyValue
	for range maxAttributes + 1 {
		same = append(same, text("k", "v"))
	}
	for name, data := range map[string]*metricspb.Metric{
		"of a gauge":     {Data: &metricspb.Metric_Gauge{Gauge: &metricspb.Gauge{DataPoints: []*metricspb.NumberDataPoint{{Attributes: same}}}}},
		"of a histogram": {Data: &metricspb.Metric_Histogram{Histogram: &metricspb.Histogram{AggregationTemporality: metricspb.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE, DataPoints: []*metricspb.HistogramDataPoint{{Attributes: same}}}}},
	} {
		data.Name = "m"
		b, err := proto.Marshal(&metricspb.MetricsData{ResourceMetrics: []*metricspb.ResourceMetrics{{ScopeMetrics: []*metricspb.ScopeMetrics{{Metrics: []*metricspb.Metric{data}}}}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := readMetrics(b); !errors.Is(err, tracing.ErrPayload) {
			t.Errorf("too many times one attribute %s: %v, want ErrPayload", name, err)
		}
	}
	for name, b := range map[string][]byte{"deltas": b, "too much": append(b, make([]byte, 2*payloadMax)...), "half": b[:len(b)-1]} {
		if _, _, err := readMetrics(b); !errors.Is(err, tracing.ErrPayload) {
			t.Errorf("%s: %v, want ErrPayload", name, err)
		}
	}
}

// FuzzInstruments: what is accepted of a child can be added up and shown, by both
// ways out.
func FuzzInstruments(f *testing.F) {
	seed := []metric{
		{instrument: instrument{scope: scope{name: "shop"}, name: "orders", kind: counter}, points: []dataPoint{{n: 3, labels: attribute.NewSet(attribute.String("a", "b"))}}},
		{instrument: instrument{name: "heat", kind: gauge}, points: []dataPoint{{f: 0.5, float: true}}},
		{instrument: instrument{name: "open", kind: level}, points: []dataPoint{{n: -7}}},
		{instrument: instrument{name: "weight", unit: "kg", kind: histogram}, points: []dataPoint{{f: 3, bounds: []float64{1}, buckets: []uint64{1, 2}}}},
	}
	payloads, err := writeMetrics(seed, time.Now().UnixNano())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payloads[0])
	m := tracing.NewMeter()
	m.Counter(tracing.Exits, tracing.KeyReason.String("killed")).Add(3)
	m.Histogram(tracing.HandoffDuration).Record(time.Millisecond, tracing.Span{})
	if payloads, err = writeMetrics(fromMeter(m.Collect()), 1); err != nil {
		f.Fatal(err)
	}
	f.Add(payloads[0])
	f.Add([]byte("\n\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		round, metrics, err := readMetrics(in)
		if err != nil {
			if !errors.Is(err, tracing.ErrPayload) {
				t.Fatal(err)
			}
			return
		}
		all := newAggregator()
		for range 2 {
			a := all.open("web/0")
			a.receive(round, metrics)
			if _, err := (producer{aggregator: all, began: time.Now()}).Produce(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		for _, m := range all.total() { // sums stay what they were made of
			if err := m.check(); err != nil && !m.isCoppice() {
				t.Fatal(err)
			}
			for _, p := range m.points {
				// The aggregator has said whose gauge it is, which a program must not.
				p.labels, _ = p.labels.Filter(func(kv attribute.KeyValue) bool { return m.kind != gauge || kv.Key != tracing.KeyActorPath })
				if err := p.check(m); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// A callback of the program that never returns holds up its own metrics, and nothing
// else: neither Coppice's nor the end.
func TestCallbackThatHangs(t *testing.T) {
	otlptest.NewReceiver(t).Setenv(t)
	master := start(t, masterProcess, nil)
	worker, err := tracing.Start(t.Context(), workerProcess, uplink(master.Adopt(workerProcess)))
	if err != nil {
		t.Fatal(err)
	}
	release, entered := make(chan struct{}), make(chan struct{}, 10)
	_, err = worker.(*pipeline).programMeters.Meter("shop").Int64ObservableGauge("hangs",
		otelmetric.WithInt64Callback(func(context.Context, otelmetric.Int64Observer) error {
			entered <- struct{}{}
			<-release
			return nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	worker.Meter().Counter(tracing.TransportBytes).Add(100)
	<-entered
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- worker.Shutdown(ctx) }() // ends with ctx
	for deadline := time.Now().Add(patience); ; {
		if _, got := scrapeText("text/plain"); strings.Contains(got, "coppice_transport_io_bytes_total 100\n") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("what the worker has counted does not come")
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v, want its context's error", err)
	}
	close(release)
	<-worker.(*pipeline).sender.done
}

// A refresh whose context has ended leaves the values of the one before.
func TestRefreshTooLate(t *testing.T) {
	c := newCollector(tracing.NewMeter(), false)
	n, err := sdkmetric.NewMeterProvider(sdkmetric.WithReader(c.reader)).Meter("shop").Int64Counter("orders")
	if err != nil {
		t.Fatal(err)
	}
	n.Add(t.Context(), 5)
	c.refresh(t.Context())
	late, cancel := context.WithCancel(t.Context())
	cancel()
	for range 30 {
		c.refresh(late)
		c.wait()
		if got, err := c.latest(); len(got) != 1 || got[0].points[0].n != 5 || err != nil {
			t.Fatalf("%v, %v; want 5 orders", got, err)
		}
	}
}

// In the master it holds up neither a scrape nor the end, either.
func TestCallbackThatHangsInTheMaster(t *testing.T) {
	otlptest.NewReceiver(t).Setenv(t)
	master, err := tracing.Start(t.Context(), masterProcess, nil)
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	_, err = master.(*pipeline).programMeters.Meter("shop").Int64ObservableGauge("hangs",
		otelmetric.WithInt64Callback(func(context.Context, otelmetric.Int64Observer) error {
			<-release
			return nil
		}))
	if err != nil {
		t.Fatal(err)
	}
	master.Meter().Counter(tracing.TransportBytes).Add(100)
	ended := make(chan string)
	go func() { // ends with release at the latest
		for range 2 {
			_, got := scrapeText("text/plain")
			ended <- got
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), patience)
		defer cancel()
		_ = master.Shutdown(ctx)
		close(ended)
	}()
	late := time.After(2 * patience)
	for n := 0; ; n++ {
		select {
		case got, more := <-ended:
			if more && !strings.Contains(got, "coppice_transport_io_bytes_total 100\n") {
				t.Errorf("a scrape:\n%s", got)
			}
			if more {
				continue
			}
		case <-late:
			t.Errorf("held up after %d scrapes", n)
		}
		break
	}
	close(release)
	for range ended {
	}
}

// A master that does not read what a child has counted does not hold up its end.
func TestMasterThatDoesNotRead(t *testing.T) {
	otlptest.NewReceiver(t).Setenv(t)
	release, entered := make(chan struct{}), make(chan struct{}, 10)
	worker, err := tracing.Start(t.Context(), workerProcess, &tracing.Uplink{Send: func(tracing.PayloadKind, []byte) error {
		entered <- struct{}{}
		<-release
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := worker.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v, want its context's error", err)
	}
	close(release)
	<-worker.(*pipeline).sender.done
}

// Two parts of a process that have the same instrument with other words, or of meters
// with other attributes, count into one sum.
func TestOneInstrumentMadeTwice(t *testing.T) {
	otlptest.NewReceiver(t).Setenv(t)
	master := start(t, masterProcess, nil)
	worker := start(t, workerProcess, uplink(master.Adopt(workerProcess)))
	for i, p := range []tracing.Pipeline{worker, master} {
		for n, m := range []otelmetric.Meter{
			p.(*pipeline).programMeters.Meter("shop"),
			p.(*pipeline).programMeters.Meter("shop", otelmetric.WithInstrumentationAttributes(attribute.String("part", "till"))),
		} {
			for _, d := range []string{"Orders.", "Orders taken."} {
				orders, err := m.Int64Counter("orders", otelmetric.WithDescription(d))
				if err != nil {
					t.Fatal(err)
				}
				open, err := m.Int64UpDownCounter("open", otelmetric.WithDescription(d))
				if err != nil {
					t.Fatal(err)
				}
				kg, err := m.Float64Histogram("weight", otelmetric.WithDescription(d), otelmetric.WithExplicitBucketBoundaries(float64(n+1), 10))
				if err != nil {
					t.Fatal(err)
				}
				orders.Add(t.Context(), int64(1+10*i))
				open.Add(t.Context(), 1)
				kg.Record(t.Context(), 5)
			}
		}
	}
	shutdown(t, worker)
	_, got := scrapeText("text/plain")
	for _, want := range []string{"orders_total 48", "open 8", `weight_bucket{le="10"} 8`, "weight_count 8"} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("a scrape lacks %s\n%s", want, got)
		}
	}
}

// Two parts of a program that count different things by one name are in each other's
// way in a scrape; the rest of it is not, and OTLP has both.
func TestOneNameInTwoScopes(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	var told []string
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { told = append(told, err.Error()) }))
	t.Cleanup(func() { otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {})) })
	master := start(t, masterProcess, nil)
	for _, scope := range []string{"a", "b"} {
		c, err := master.(*pipeline).programMeters.Meter(scope).Int64Counter("jobs")
		if err != nil {
			t.Fatal(err)
		}
		c.Add(t.Context(), 1)
	}
	newShop(t, master.(*pipeline).programMeters).order(t.Context(), 1)
	for range 2 {
		if code, got := scrapeText("text/plain"); code != 200 || !strings.Contains(got, "shop_revenue_EUR_total 2.5\n") {
			t.Errorf("a scrape (%d):\n%s", code, got)
		}
	}
	if len(told) != 1 || !strings.Contains(told[0], "jobs") {
		t.Errorf("told: %q, want one thing", told)
	}
	shutdown(t, master)
	jobs := 0
	for _, m := range r.Metrics() {
		if m.Name == "jobs" {
			jobs++
		}
	}
	if jobs != 2 {
		t.Errorf("%d of them by OTLP, want 2", jobs)
	}
}

// What a program registers with client_golang is shown like what it counts by OpenTelemetry: the
// master and a worker, which are one process here, count each thing twice.
func TestPrometheusRegistry(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	t.Setenv("OTEL_METRICS_PRODUCERS", "prometheus")
	registry := promclient.NewRegistry()
	registerer, gatherer := promclient.DefaultRegisterer, promclient.DefaultGatherer
	promclient.DefaultRegisterer, promclient.DefaultGatherer = registry, registry
	t.Cleanup(func() { promclient.DefaultRegisterer, promclient.DefaultGatherer = registerer, gatherer })
	var told []string
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { told = append(told, err.Error()) }))
	t.Cleanup(func() { otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {})) })
	own := promclient.NewRegistry() // of a library, say
	registry.MustRegister(own)
	promauto.With(own).NewCounterVec(promclient.CounterOpts{Name: "carts_total", Help: "Carts."}, []string{"card"}).WithLabelValues("visa").Add(2)
	promauto.NewGauge(promclient.GaugeOpts{Name: "cart_weight_kg"}).Set(3)
	promauto.NewSummary(promclient.SummaryOpts{Name: "cart_seconds", Objectives: map[float64]float64{0.5: 0.1}}).Observe(4)
	const traced = "0123456789abcdef0123456789abcdef"
	promauto.NewHistogram(promclient.HistogramOpts{Name: "cart_size", Buckets: []float64{1, 10}}).(promclient.ExemplarObserver).
		ObserveWithExemplar(5, promclient.Labels{"trace_id": traced, "span_id": traced[:16]})
	promauto.NewHistogram(promclient.HistogramOpts{Name: "cart_native", NativeHistogramBucketFactor: 1.1}).Observe(6)

	master := start(t, masterProcess, nil)
	child := master.Adopt(workerProcess)
	shutdown(t, start(t, workerProcess, uplink(child))) // sends a last time
	for range 2 {
		_, got := scrapeText("application/openmetrics-text; version=1.0.0")
		for _, want := range []string{
			"# HELP carts Carts.", `carts_total{card="visa"} 4.0`, "cart_seconds_count 2", "cart_seconds_sum 8.0",
			`cart_size_bucket{le="10.0"} 2 # {`, `trace_id="` + traced + `"`,
			`cart_weight_kg{coppice_actor_path="master"} 3.0`,
		} {
			if !strings.Contains(got, want) {
				t.Errorf("a scrape lacks %s\n%s", want, got)
			}
		}
		if lives := child != nil; strings.Contains(got, `cart_weight_kg{coppice_actor_path="web/1"} 3.0`) != lives {
			t.Errorf("the worker lives: %v\n%s", lives, got)
		}
		if child != nil {
			child.Ended(killed)
			child = nil
		}
	}
	if len(told) == 0 || !strings.Contains(told[0], "cart_native") {
		t.Errorf("told %q, want that cart_native is left out", told)
	}
	shutdown(t, master)
	if !slices.ContainsFunc(r.Metrics(), func(m otlptest.Metric) bool { return m.Name == "carts_total" && m.Value == 4 }) {
		t.Errorf("by OTLP: %+v", r.Metrics())
	}
}
