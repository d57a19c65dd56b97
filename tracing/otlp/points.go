package otlp

import (
	"encoding/json"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/tracing"
)

// Bounds on a payload of what Coppice itself counts.
const (
	maxPoints = 512 // series
	maxLabels = 8   // attributes of a series
	maxLabel  = 256 // bytes of a key or a value
)

// wirePoint is a tracing.Point as it travels. Payloads are few, one a second for
// each child, so they are JSON.
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
func writePoints(points []tracing.DataPoint) ([]byte, error) {
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
func readPoints(payload []byte) ([]tracing.DataPoint, error) {
	bad := func(why string) ([]tracing.DataPoint, error) {
		return nil, fmt.Errorf("%w: metrics: %s", tracing.ErrPayload, why)
	}
	var wire []wirePoint
	if err := json.Unmarshal(payload, &wire); err != nil {
		return bad(err.Error())
	}
	if len(wire) > maxPoints {
		return bad("too many series")
	}
	points := make([]tracing.DataPoint, 0, len(wire))
	for _, w := range wire {
		p := tracing.DataPoint{Instrument: instruments[w.Name], Value: w.Value, Buckets: w.Buckets, Total: time.Duration(w.Total)}
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

// metricsOf puts points into the form of the books.
func metricsOf(points []tracing.DataPoint) []metric {
	var metrics []metric
	at := make(map[*tracing.Instrument]int)
	for _, p := range points {
		i, known := at[p.Instrument]
		if !known {
			i = len(metrics)
			at[p.Instrument] = i
			k := map[tracing.InstrumentKind]kind{tracing.Sum: counter, tracing.Level: level, tracing.Duration: histogram}[p.Instrument.Kind]
			metrics = append(metrics, metric{
				instrument:  instrument{coppiceScope, p.Instrument.Name, p.Instrument.Unit, k},
				description: p.Instrument.Description,
			})
		}
		mine := dataPoint{labels: p.Labels, n: p.Value}
		if p.Instrument.Kind == tracing.Duration {
			mine = dataPoint{labels: p.Labels, f: p.Total.Seconds(), float: true, bounds: tracing.Bounds, buckets: p.Buckets}
		}
		for _, e := range p.Exemplars {
			tid, sid := e.Span.TraceID(), e.Span.SpanID()
			mine.exemplars = append(mine.exemplars, metricdata.Exemplar[float64]{
				Value: e.Value.Seconds(), Time: e.At, TraceID: tid[:], SpanID: sid[:],
			})
		}
		metrics[i].points = append(metrics[i].points, mine)
	}
	return metrics
}
