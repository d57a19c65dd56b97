package tracing_test

import (
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/tracing"
)

// points returns what m has counted, by instrument and the text of its labels.
func points(m *tracing.Meter) map[string]tracing.DataPoint {
	all := map[string]tracing.DataPoint{}
	for _, p := range m.Collect() {
		all[p.Instrument.Name+"{"+p.Labels.Encoded(attribute.DefaultEncoder())+"}"] = p
	}
	return all
}

func TestHandoffMeter(t *testing.T) {
	m := tracing.NewMeter()
	tp, _ := recorder(t)
	tracer := tracing.New(tp).WithMeter(m)
	sampled := tracer.Accept(tracing.AcceptSpan{})
	web := tracer.Handoffs("web")
	if tracer.Handoffs("web") != web || tracer.Handoffs("api") == web {
		t.Error("one meter a pool is not what Handoffs returns")
	}
	web.Claimed(80*time.Microsecond, 0, tracing.Span{})
	web.Claimed(30*time.Millisecond, 20*time.Millisecond, sampled)
	web.Claimed(time.Minute, 0, tracing.Span{})
	web.Failed(tracing.Refused, "queue full")
	web.Failed(tracing.Refused, "queue full")
	all := points(m)
	d := all["coppice.handoff.duration{coppice.pool.name=web}"]
	if want := []uint64{0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1}; len(d.Buckets) != len(want) {
		t.Fatalf("%d buckets, want %d", len(d.Buckets), len(want))
	} else {
		for i := range want {
			if d.Buckets[i] != want[i] {
				t.Errorf("buckets %v, want %v", d.Buckets, want)
				break
			}
		}
	}
	if d.Total != time.Minute+30*time.Millisecond+80*time.Microsecond {
		t.Errorf("total %v", d.Total)
	}
	if len(d.Exemplars) != 1 || d.Exemplars[0].Span.TraceID() != sampled.Context().TraceID() || d.Exemplars[0].Value != 30*time.Millisecond {
		t.Errorf("exemplars %+v", d.Exemplars)
	}
	if got := all["coppice.handoff.offers{coppice.handoff.outcome=claimed,coppice.pool.name=web}"].Value; got != 3 {
		t.Errorf("%d claimed", got)
	}
	if got := all["coppice.handoff.offers{coppice.handoff.outcome=refused,coppice.handoff.reason=queue full,coppice.pool.name=web}"].Value; got != 2 {
		t.Errorf("%d refused", got)
	}
}

func TestWatchAddsUp(t *testing.T) {
	m := tracing.NewMeter()
	var stop func()
	for range 2 {
		stop = m.Watch(func(emit func(*tracing.Instrument, int64, ...attribute.KeyValue)) {
			emit(tracing.PoolWorkers, 2, tracing.KeyState.String("running"))
			emit(tracing.PoolWorkers, 1, tracing.KeyState.String("running"))
			emit(tracing.PoolWorkers, 1, tracing.KeyState.String("down"))
		})
	}
	all := points(m)
	if r, d := all["coppice.pool.workers{coppice.child.state=running}"].Value, all["coppice.pool.workers{coppice.child.state=down}"].Value; r != 6 || d != 2 {
		t.Errorf("%d running, %d down", r, d)
	}
	stop()
	if r := points(m)["coppice.pool.workers{coppice.child.state=running}"].Value; r != 3 {
		t.Errorf("%d running, after one has stopped", r)
	}
}

func TestCountingDoesNotAllocate(t *testing.T) {
	var off *tracing.Tracer
	on := off.WithMeter(tracing.NewMeter())
	for name, tracer := range map[string]*tracing.Tracer{"off": off, "on": on} {
		if n := testing.AllocsPerRun(100, func() {
			tracer.Handoffs("web").Claimed(time.Millisecond, 0, tracing.Span{})
			tracer.Handoffs("web").Failed("", "")
		}); name == "off" && n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
		if n := testing.AllocsPerRun(100, func() {
			tracer.Handoffs("web").Claimed(time.Millisecond, 0, tracing.Span{})
		}); n != 0 {
			t.Errorf("%s: %v allocations for a claim", name, n)
		}
	}
	var m *tracing.Meter
	m.Counter(tracing.Restarts).Add(1)
	m.Histogram(tracing.QueueDuration).Record(1, tracing.Span{})
	m.Watch(nil)
	if m.Collect() != nil {
		t.Error("a meter that is off has counted")
	}
}

// One op is what is counted of one connection.
func BenchmarkClaimed(b *testing.B) {
	var off *tracing.Tracer
	tracer := off.WithMeter(tracing.NewMeter())
	b.ReportAllocs()
	for b.Loop() {
		tracer.Handoffs("web").Claimed(time.Millisecond, 0, tracing.Span{})
	}
}
