package otlp

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/tracing"
	"github.com/coppice-go/coppice/tracing/otlp/otlptest"
)

// A worker that is gone in the middle of everything: what it had sent comes once,
// what it had finished comes as it was, what it had open ends with an error.
func TestTableOutlivesItsProcess(t *testing.T) {
	for _, row := range []struct {
		name string
		send func(c tracing.ChildTelemetry, kind tracing.PayloadKind, b []byte) error // of the spans before the death
		sent int                                                                      // of those that ended first: in the table no more
	}{
		{"sent and received", func(c tracing.ChildTelemetry, k tracing.PayloadKind, b []byte) error { return c.Receive(k, b) }, 3},
		{"sent and lost on the way", func(tracing.ChildTelemetry, tracing.PayloadKind, []byte) error { return nil }, 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := otlptest.NewReceiver(t)
			r.Setenv(t)
			t.Setenv("OTEL_SERVICE_NAME", "shop")
			master := start(t, masterProcess, nil)
			c := master.Adopt(tracing.ProcessResource{Role: "worker", Name: "web/spare", ID: 7, Slot: -1, Generation: 2})
			worker := start(t, workerProcess, &tracing.Uplink{
				Table: c.Table(), Send: func(k tracing.PayloadKind, b []byte) error { return row.send(c, k, b) },
			})
			tracer := worker.TracerProvider().Tracer("shop")
			ctx, root := tracer.Start(t.Context(), "GET /", trace.WithSpanKind(trace.SpanKindServer), trace.WithAttributes(attribute.String("url.path", "/")))
			for i := range 3 {
				_, s := tracer.Start(ctx, "first", trace.WithAttributes(attribute.Int("i", i)))
				s.End()
			}
			if err := worker.TracerProvider().(interface{ ForceFlush(context.Context) error }).ForceFlush(t.Context()); err != nil {
				t.Fatal(err)
			}
			began := time.Now()
			_, done := tracer.Start(ctx, "query", trace.WithSpanKind(trace.SpanKindClient), trace.WithLinks(trace.LinkFromContext(ctx)))
			done.SetAttributes(attribute.Bool("ok", true), attribute.Float64("share", 0.5), attribute.StringSlice("rows", []string{"a", "b"}))
			done.AddEvent("seen")
			done.SetStatus(codes.Error, "no such table")
			done.End(trace.WithTimestamp(began.Add(time.Second)))
			_, open := tracer.Start(ctx, "charge")
			open.AddEvent("not noted")

			end := killed
			end.Process = workerProcess
			served := c.Ended(end) // the worker's pipeline never got to its end
			if len(served) != 1 || served[0].SpanID() != root.SpanContext().SpanID() || served[0].TraceID() != root.SpanContext().TraceID() {
				t.Errorf("served %v, want the request", served)
			}
			tr := r.Wait(t, patience, func(tr otlptest.Trace) error { return tr.Has("GET /", "query", "charge", "first") })
			if n := len(tr.Find("first")); n != 3 {
				t.Errorf("%d spans that were sent, want 3, each once:\n%v", n, tr)
			}
			if n := len(tr.Spans); n != 6 {
				t.Errorf("%d spans, want 6:\n%v", n, tr)
			}
			recovered := 0
			for _, s := range tr.Spans {
				if s.Attributes["coppice.span.recovered"] == "true" {
					recovered++
				}
				if s.Scope != "shop" || s.Resource["service.name"] != "shop" || s.Resource["service.instance.id"] != "web/1#3" {
					t.Errorf("%s: scope %q, resource %v", s.Name, s.Scope, s.Resource)
				}
			}
			if want := 6 - row.sent; recovered != want || master.Stats().Recovered != uint64(want) {
				t.Errorf("%d recovered and %d counted, want %d", recovered, master.Stats().Recovered, want)
			}
			query := tr.Find("query")[0]
			for k, want := range map[string]string{"ok": "true", "share": "0.5", "rows": `["a","b"]`} {
				if query.Attributes[k] != want {
					t.Errorf("query: %s=%q, want %q", k, query.Attributes[k], want)
				}
			}
			if query.Kind != "CLIENT" || !query.Error || query.Message != "no such table" || len(query.Links) != 1 ||
				!query.End.Equal(began.Add(time.Second)) {
				t.Errorf("query: %+v", query)
			}
			for _, name := range []string{"GET /", "charge"} {
				s := tr.Find(name)[0]
				if !s.Error || s.Message != "web/1 ended: signal: killed" || s.Attributes["error.type"] != "signaled" || s.End.UnixNano() != killed.At.UnixNano() {
					t.Errorf("%s: %+v", name, s)
				}
				if s.Resource["process.pid"] != strconv.Itoa(killed.PID) {
					t.Errorf("%s: of process %s", name, s.Resource["process.pid"])
				}
			}
			if p, _ := tr.Parent(tr.Find("charge")[0]); p.Name != "GET /" {
				t.Errorf("charge is under %q", p.Name)
			}
		})
	}
}

// newTestNotes returns a table of this process's own, and the master's view of it.
func newTestNotes(t testing.TB) (*spanTable, tableMemory) {
	mem, f, err := newTable()
	if err != nil {
		t.Fatal(err)
	}
	child, err := openTable(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.unmap(); child.unmap() })
	return newSpanTable(child), mem
}

// Whatever becomes of spans, their slots are free again: the SDK's own batch
// processor, which drops without a word, would leak them.
func TestSlotsDoNotLeak(t *testing.T) {
	n, mem := newTestNotes(t)
	spans := endedSpans(1, 10)
	one := spans[0].ReadOnlySpan
	for i := range 3 * slotCount {
		n.start(one)
		slot := n.end(one)
		switch i % 3 {
		case 0:
			n.dropped(slot)
		case 1:
			n.sending([]int{slot})
			n.refused()
		case 2:
			n.sending([]int{slot})
			mem.word64(offReceived).Store(n.number)
		}
	}
	if n.high > 8 || n.full.Load() != 0 || len(n.open) != 0 {
		t.Errorf("%d slots in use at once, %d spans without one, %d open", n.high, n.full.Load(), len(n.open))
	}
	if left := mem.read(n.number); len(left) != 0 {
		t.Errorf("%d spans are still noted", len(left))
	}
}

func TestFullTableCountsAndGoesOn(t *testing.T) {
	n, mem := newTestNotes(t)
	sr := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(sr))
	for range slotCount + 5 {
		tp.Tracer("t").Start(t.Context(), "s")
	}
	for _, s := range sr.Started() {
		n.start(s)
	}
	if n.full.Load() != 5 || len(mem.read(0)) != slotCount {
		t.Errorf("%d without a slot, %d noted", n.full.Load(), len(mem.read(0)))
	}
	if slot := n.end(sr.Started()[slotCount]); slot != noSlot {
		t.Errorf("a span without a slot has slot %d", slot)
	}
}

// The table cannot be shrunk, so a child cannot kill its master by SIGBUS.
func TestTableIsSealed(t *testing.T) {
	mem, f, err := newTable()
	if err != nil {
		t.Fatal(err)
	}
	defer mem.unmap()
	defer f.Close()
	if err := f.Truncate(0); err == nil {
		t.Error("a table was shrunk")
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE); err == nil {
		t.Error("a table was sealed against writing")
	}
}

func TestOpenTableRefusesAnythingElse(t *testing.T) {
	short, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openTable(short); err == nil {
		t.Error("an empty file was taken for a table")
	}
	mem, f, err := newTable()
	if err != nil {
		t.Fatal(err)
	}
	defer mem.unmap()
	mem.word64(0).Store(1)
	if _, err := openTable(f); err == nil {
		t.Error("a table without its magic was taken")
	}
}

// A record never exceeds its place, and what fits is what was.
func TestRecordIsClipped(t *testing.T) {
	long := strings.Repeat("é", 500)
	sr := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(sr))
	ctx, parent := tp.Tracer(long).Start(t.Context(), "parent")
	_, s := tp.Tracer(long).Start(ctx, long)
	for i := range 20 {
		s.SetAttributes(attribute.String(fmt.Sprint("k", i), strings.Repeat("v", 5*i)), attribute.Float64(fmt.Sprint("f", i), math.Pi))
		s.AddLink(trace.LinkFromContext(ctx))
		s.AddEvent("e")
	}
	s.SetStatus(codes.Error, long)
	s.End()
	for _, size := range []int{startRecord, endRecord} {
		buf := slices.Repeat([]byte{0xee}, size+64)
		n := putRecord(buf[:size:size], sr.Ended()[0])
		if n > size {
			t.Fatalf("a record of %d bytes in %d", n, size)
		}
		for i, b := range buf[size:] {
			if b != 0xee {
				t.Fatalf("byte %d behind the record was written", i)
			}
		}
		scope, got, err := readRecord(buf[:n])
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(long, scope) || len(scope) < maxScope-2 || !strings.HasPrefix(long, got.Name) || len(got.Name) < maxName-2 {
			t.Errorf("scope of %d bytes, name of %d", len(scope), len(got.Name))
		}
		if all := len(got.Attributes) + int(got.DroppedAttributesCount); all != 40 {
			t.Errorf("%d attributes with those left out, want 40", all)
		}
		if all := len(got.Links) + int(got.DroppedLinksCount); all != 20 {
			t.Errorf("%d links with those left out, want 20", all)
		}
		if got.DroppedEventsCount != 20 || string(got.ParentSpanId) != string(idOf(parent)) {
			t.Errorf("%d events left out, parent %x", got.DroppedEventsCount, got.ParentSpanId)
		}
	}
}

func idOf(s trace.Span) []byte {
	id := s.SpanContext().SpanID()
	return id[:]
}

// FuzzTable: whatever a child leaves in its table, reading it is safe, and what is
// taken for a span can be exported.
func FuzzTable(f *testing.F) {
	mem := make(tableMemory, tableSize)
	n := newSpanTable(mem)
	for _, s := range endedSpans(2, 20) {
		n.start(s)
	}
	f.Add([]byte(mem[:16]), []byte(mem[slotBase:slotBase+2*slotSize]), uint64(0))
	n.end(endedSpans(1, 3)[0])
	f.Add([]byte(mem[:32]), []byte(mem[slotBase:slotBase+slotSize]), uint64(7))
	f.Fuzz(func(t *testing.T, head, slots []byte, taken uint64) {
		mem := make(tableMemory, tableSize)
		copy(mem[:slotBase], head)
		copy(mem[slotBase:], slots)
		mem.word32(offHigh).Store(mem.word32(offHigh).Load() % 8)
		p := &pipeline{payloads: newQueue(queueConfig[payload]{
			limit: payloadLimit, batch: payloadLimit, weight: func(p payload) int { return p.size },
			send: func(context.Context, []payload) (int, error) { return 0, nil },
		})}
		c := &childTelemetry{p: p, process: workerProcess}
		if served := c.recover(mem.read(taken), killed); len(served) > tracing.MaxServed {
			t.Errorf("%d served", len(served))
		}
		if err := p.payloads.close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// One op is one span, started and ended, with the attributes of a hand-off; what
// is behind the processor takes it for nothing.
func BenchmarkSpan(b *testing.B) {
	attrs := []attribute.KeyValue{
		tracing.KeyPool.String("web"), tracing.KeyHandleKind.String("conn"),
		tracing.KeyHandoffTarget.String("web/1"), tracing.KeyIncarnation.Int(3),
	}
	for _, table := range []bool{false, true} {
		b.Run(map[bool]string{false: "relay", true: "relay and table"}[table], func(b *testing.B) {
			m := newMarshaller(func([]byte) error { return nil })
			var n *spanTable
			if table {
				var mem tableMemory
				n, mem = newTestNotes(b)
				m.table = n
				m.relay = func([]byte) error { mem.word64(offReceived).Store(n.number); return nil }
			}
			q := newQueue(queueConfig[endedSpan]{
				limit: 1 << 30, batch: spanBatch, delay: spanDelay, weight: func(endedSpan) int { return 1 }, send: m.send,
			})
			tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(processor{spans: q, table: n}))
			tracer := tp.Tracer("bench")
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				_, s := tracer.Start(b.Context(), "hand-off", trace.WithSpanKind(trace.SpanKindProducer))
				s.SetAttributes(attrs...)
				s.End()
				if i%1000 == 999 { // the cost of sending counts, and nothing piles up
					_ = q.flush(b.Context())
				}
			}
			if n != nil && n.full.Load() != 0 {
				b.Errorf("%d spans found no slot", n.full.Load())
			}
			_ = q.close(context.Background())
		})
	}
}

// Text that is not UTF-8 can not be marshalled. It costs its own span, not those
// beside it, and no slot; of a span that is open it costs the text.
func TestTableAndTextThatIsNotUTF8(t *testing.T) {
	n, m := newTestNotes(t)
	var payloads int
	relay := newMarshaller(func([]byte) error { payloads++; return nil })
	relay.table = n
	sr := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(sr), sdktrace.WithSampler(sdktrace.AlwaysSample()))
	for i := range 8 {
		_, s := tp.Tracer("test").Start(t.Context(), "span")
		if i == 3 {
			s.SetName("bad\xff")
		}
		n.start(s.(sdktrace.ReadOnlySpan))
		s.End()
	}
	var batch []endedSpan
	for _, s := range sr.Ended() {
		batch = append(batch, endedSpan{s, n.end(s)})
	}
	if found := m.read(0); len(found) != 8 {
		t.Fatalf("%d records, want 8", len(found))
	} else if _, s, err := readRecord(found[3].record); err != nil || s.Name != "bad\ufffd" {
		t.Errorf("record of a name that is not UTF-8: %v, %v", s, err)
	}
	if lost, err := relay.send(t.Context(), batch); lost != 1 || err == nil {
		t.Errorf("lost %d, error %v", lost, err)
	}
	m.word64(offReceived).Store(uint64(payloads))
	n.mu.Lock()
	n.releaseLocked()
	free := len(n.free)
	n.mu.Unlock()
	if free != 8 {
		t.Errorf("%d slots free, want 8", free)
	}
}

// A process that ends with a long text, or one that is not UTF-8, and a record whose
// scope is not UTF-8, cost no span.
func TestTableAndAnEndThatIsNotUTF8(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	master := start(t, masterProcess, nil)
	c := master.Adopt(workerProcess).(*childTelemetry)
	n := newSpanTable(c.mem)
	tp := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()))
	ctx := t.Context()
	for _, name := range []string{"one", "two"} {
		var s trace.Span
		ctx, s = tp.Tracer("scope").Start(ctx, name)
		n.start(s.(sdktrace.ReadOnlySpan))
	}
	c.mem[slotAt(1)+offStart+1] = 0xff // the scope of the second
	end := killed
	end.Reason = "panic: \xff" + strings.Repeat("x", 1<<16)
	if served := c.Ended(end); len(served) != 1 {
		t.Errorf("served %v, want the outer one", served)
	}
	tr := r.Wait(t, patience, func(tr otlptest.Trace) error { return tr.Has("one", "two") })
	for _, s := range tr.Spans {
		if !strings.HasPrefix(s.Message, "web/1 ended: panic: \ufffdx") || len(s.Message) > maxEndText {
			t.Errorf("%s: %d bytes, %.40q", s.Name, len(s.Message), s.Message)
		}
	}
}
