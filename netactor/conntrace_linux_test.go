package netactor_test

import (
	"errors"
	"io"
	"net"
	"slices"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/tracing"
)

func recording(s sdktrace.Sampler) (*tracing.Tracer, *tracetest.SpanRecorder) {
	sr := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(sr), sdktrace.WithSampler(s))
	return tracing.New(tp), sr
}

// TestTraceParked: the trace of a connection that was parked links to its stay before, and one that
// was never parked has no link.
func TestTraceParked(t *testing.T) {
	tracer, spans := recording(sdktrace.AlwaysSample())
	tr := newTree(t, false, func(tr *tree) { tr.cfg.Tracer = tracer })
	r := loopback
	r.Park = netactor.ParkAtOnce
	ln := tr.worker(0).mustListen(r)
	tr.joined(1)
	client := dial(t, ln.Addr())
	for last := range 2 {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 16)
		if _, err := c.Read(b); err != nil {
			t.Fatal(err)
		}
		if last == 0 {
			c.(netactor.ParkableConn).Idle()
			if _, err := c.Read(b); !errors.Is(err, netactor.ErrParked) {
				t.Fatal(err)
			}
			if _, err := client.Write([]byte("y")); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
	}
	byName := func(name string) (out []sdktrace.ReadOnlySpan) {
		for _, s := range spans.Ended() {
			if s.Name() == name {
				out = append(out, s)
			}
		}
		slices.SortFunc(out, func(a, b sdktrace.ReadOnlySpan) int { return a.StartTime().Compare(b.StartTime()) })
		return out
	}
	until(t, "the spans", func() bool { return len(byName(tracing.SpanServe)) == 2 && len(byName(tracing.SpanAccept)) == 2 })
	accepts, before := byName(tracing.SpanAccept), byName(tracing.SpanServe)[0].SpanContext()
	if n := len(accepts[0].Links()); n != 0 {
		t.Errorf("the first accept has %d links", n)
	}
	if l := accepts[1].Links(); len(l) != 1 || l[0].SpanContext.SpanID() != before.SpanID() || l[0].SpanContext.TraceID() != before.TraceID() {
		t.Errorf("the second one links to %v, want %v", l, before)
	}
}

// Issue 3, item 6: accept, hand-off, claim and serve are one trace, each a child
// of the one before; a hand-off that came back is followed by a linked one.
func TestTrace(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tracer, spans := recording(sdktrace.AlwaysSample())
		tr := newTree(t, mem, func(tr *tree) {
			tr.cfg.Tracer = tracer
			tr.claim = 30 * time.Millisecond
		})
		a := tr.worker(0)
		addr := a.mustListen(loopback).Addr().String() // never accepts
		tr.joined(1)
		answer := make(chan string, 1)
		go func() {
			s, _ := tryAsk("tcp", addr)
			answer <- s
		}()
		until(t, "the offer to come back", func() bool { return tr.stats().Workers[0].Counts.Returned > 0 })
		go serveID(tr.worker(1).mustListen(loopback2(addr)), "b")
		if s := <-answer; s != "b" {
			t.Fatalf("answer %q", s)
		}
		tr.settled(1)
		byName := func(name string) (out []sdktrace.ReadOnlySpan) {
			for _, s := range spans.Ended() {
				if s.Name() == name {
					out = append(out, s)
				}
			}
			return out
		}
		until(t, "the serve span", func() bool { return len(byName(tracing.SpanServe)) == 1 && len(byName(tracing.SpanAccept)) == 1 })
		accept, serve, handoffs := byName(tracing.SpanAccept)[0], byName(tracing.SpanServe)[0], byName(tracing.SpanHandoff)
		if len(handoffs) < 2 {
			t.Fatalf("%d hand-offs", len(handoffs))
		}
		last := handoffs[len(handoffs)-1]
		var claim sdktrace.ReadOnlySpan
		for _, s := range byName(tracing.SpanClaim) {
			if s.SpanContext().SpanID() == serve.Parent().SpanID() {
				claim = s
			}
		}
		if claim == nil || claim.Parent().SpanID() != last.SpanContext().SpanID() ||
			last.Parent().SpanID() != accept.SpanContext().SpanID() ||
			serve.SpanContext().TraceID() != accept.SpanContext().TraceID() {
			t.Error("accept, hand-off, claim and serve are not one chain")
		}
		if l := last.Links(); len(l) != 1 || l[0].SpanContext.SpanID() != handoffs[len(handoffs)-2].SpanContext().SpanID() {
			t.Errorf("links of the second hand-off: %v", l)
		}
		for _, kv := range handoffs[0].Attributes() {
			if kv.Key == tracing.KeyHandoffReason && kv.Value.AsString() != "not claimed in time" {
				t.Errorf("the first hand-off came back because it was %q", kv.Value.AsString())
			}
		}
		if len(byName(tracing.SpanQueue)) == 0 {
			t.Error("no queue span")
		}
	})
}

// TestHandoffEndsAtTheClaim: a hand-off ends when the worker claims the connection, and not when
// the listener process reads the claim, which on an idle listener is milliseconds later.
func TestHandoffEndsAtTheClaim(t *testing.T) {
	bothLinks(t, func(t *testing.T, mem bool) {
		tracer, spans := recording(sdktrace.AlwaysSample())
		tr := newTree(t, mem, func(tr *tree) { tr.cfg.Tracer = tracer })
		ln := tr.worker(0).mustListen(loopback)
		go serveID(ln, "a")
		tr.joined(1)
		const asks = 3 // one at a time: no other event makes the listener process look
		for range asks {
			ask(t, "tcp", ln.Addr().String())
		}
		tr.settled(asks)
		ended := map[trace.SpanID]sdktrace.ReadOnlySpan{}
		until(t, "the claims", func() bool {
			claims := 0
			for _, s := range spans.Ended() {
				ended[s.SpanContext().SpanID()] = s
				if s.Name() == tracing.SpanClaim {
					claims++
				}
			}
			return claims == asks
		})
		for _, claim := range ended {
			if claim.Name() != tracing.SpanClaim {
				continue
			}
			handoff := ended[claim.Parent().SpanID()]
			if handoff == nil {
				t.Fatal("a claim without a hand-off")
			}
			accept := ended[handoff.Parent().SpanID()]
			if handoff.EndTime().Before(handoff.StartTime()) || !claim.EndTime().Equal(handoff.EndTime()) || !accept.EndTime().Equal(handoff.EndTime()) {
				t.Errorf("hand-off from %v to %v; claim until %v; accept until %v",
					handoff.StartTime(), handoff.EndTime(), claim.EndTime(), accept.EndTime())
			}
		}
	})
}

// The trace of a connection that no worker claimed has the reason.
func TestTraceUnserved(t *testing.T) {
	tracer, spans := recording(sdktrace.AlwaysSample())
	tr := newTree(t, false, func(tr *tree) { tr.cfg.Tracer = tracer })
	r := loopback
	r.Policy, r.Peek = netactor.Hash, netactor.Peek{By: netactor.PeekBytes, Bytes: 1, Timeout: time.Minute}
	r.Limits = netactor.Limits{PerWorker: 1, AtLimit: netactor.CloseAtLimit}
	ln := tr.worker(0).mustListen(r)
	tr.joined(1)
	held := hold(ln)
	silent := func() net.Conn {
		c := dial(t, ln.Addr())
		until(t, "it to be waited for", func() bool { return tr.stats().Counts.Peeking == 1 })
		return c
	}
	said := func(want string) {
		t.Helper()
		until(t, want, func() bool {
			for _, s := range spans.Ended() {
				if s.Name() == tracing.SpanAccept && s.Status().Description == want {
					return true
				}
			}
			return false
		})
	}
	c := silent()
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
	said("netactor: client reset the connection before a worker took it")
	c = silent()
	_, _ = io.WriteString(dial(t, ln.Addr()), "x")
	served := <-held
	tr.settled(1)
	_, _ = io.WriteString(c, "x")
	said("netactor: connection was turned away at a limit")
	served.Close()
	until(t, "its end to be heard of", func() bool { return tr.stats().Workers[0].Counts.Open() == 0 })
	silent()
	tr.disp.Close()
	said("netactor: listener ended before a worker took the connection")
}

// A trace that is not sampled is sent along, and records nothing.
func TestTraceUnsampled(t *testing.T) {
	tracer, spans := recording(sdktrace.NeverSample())
	tr := newTree(t, true, func(tr *tree) { tr.cfg.Tracer = tracer })
	ln := tr.worker(0).mustListen(loopback)
	tr.joined(1)
	answer := make(chan string, 1)
	go func() {
		s, _ := tryAsk("tcp", ln.Addr().String())
		answer <- s
	}()
	c, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	s := c.(tracing.TracedConn).TraceSpan()
	if s.Sampled() || !s.Context().IsValid() {
		t.Errorf("sampled %v, context %v", s.Sampled(), s.Context())
	}
	c.Close()
	<-answer
	if n := len(spans.Ended()); n != 0 {
		t.Errorf("%d spans", n)
	}
}

// BenchmarkHandOver: one op is one connection: connect, accept, offer over a socket pair, claim,
// write a byte, close; client and all processes are one process, with tracing off and at several
// ratios. Sampled spans are discarded.
func BenchmarkHandOver(b *testing.B) {
	ratio := func(r float64) *tracing.Tracer {
		return tracing.New(sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(r)))))
	}
	var off *tracing.Tracer
	for _, row := range []struct {
		name   string
		tracer *tracing.Tracer
	}{
		{"off", off},
		{"metrics", off.WithMeter(tracing.NewMeter())},
		{"unsampled", ratio(0)},
		{"1%", ratio(0.01)},
		{"100%", ratio(1)},
	} {
		b.Run(row.name, func(b *testing.B) {
			tr := newTree(b, false, func(tr *tree) { tr.cfg.Tracer = row.tracer })
			var addr string
			for i := range 2 {
				ln := tr.worker(i).mustListen(loopback)
				addr = ln.Addr().String()
				go serveID(ln, "x")
			}
			tr.joined(2)
			b.ReportAllocs()
			for b.Loop() {
				if s, err := tryAsk("tcp", addr); s != "x" || err != nil {
					b.Fatal(s, err)
				}
			}
		})
	}
}
