package otlp

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/coppice-go/coppice/tracing"
)

// childTelemetry is the master's side of one child.
type childTelemetry struct {
	p        *pipeline
	process  tracing.ProcessResource
	metrics  *processMetrics
	received atomic.Uint64 // payloads of spans received

	mu    sync.Mutex
	mem   tableMemory // nil when there is none, and after the end
	table *os.File    // for the child; nil after Table
}

// Adopt makes the table of a child that is to be a process.
func (p *pipeline) Adopt(process tracing.ProcessResource) tracing.ChildTelemetry {
	c := &childTelemetry{p: p, process: process, metrics: p.aggregator.open(process.Name)}
	if p.payloads == nil || process.Shared {
		return c
	}
	mem, f, err := newTable()
	if err != nil {
		otel.Handle(fmt.Errorf("tracing/otlp: no table for %s: %w", process.Name, err))
		return c
	}
	c.mem, c.table = mem, f
	return c
}

// Table returns the file, once.
func (c *childTelemetry) Table() *os.File {
	c.mu.Lock()
	defer c.mu.Unlock()
	f := c.table
	c.table = nil
	return f
}

func (c *childTelemetry) Receive(kind tracing.PayloadKind, b []byte) error {
	switch kind {
	case tracing.Spans:
		if err := c.p.export(b); err != nil {
			return err
		}
		n := c.received.Add(1)
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.mem != nil {
			c.mem.word64(offReceived).Store(n)
		}
		return nil
	case tracing.Metrics:
		round, metrics, err := readMetrics(b)
		if err == nil {
			c.metrics.receive(round, metrics)
		}
		return err
	}
	return fmt.Errorf("%w: kind %d", tracing.ErrPayload, kind)
}

// Ended exports what the table holds and closes it.
func (c *childTelemetry) Ended(e tracing.End) []tracing.OpenSpan {
	c.metrics.close()
	c.mu.Lock()
	mem, f := c.mem, c.table
	c.mem, c.table = nil, nil
	c.mu.Unlock()
	if f != nil {
		_ = f.Close() // Table was not called
	}
	if mem == nil {
		return nil
	}
	all := mem.read(c.received.Load())
	mem.unmap()
	return c.recover(all, e)
}

// maxEndText limits the exit text in each recovered span, in bytes, so that a batch of them
// stays below the collector's size limit.
const maxEndText = 256

// recover turns the records of a dead child into spans and exports them.
func (c *childTelemetry) recover(all []tableSpan, e tracing.End) []tracing.OpenSpan {
	scopes := make(map[string]*tracepb.ScopeSpans)
	open := make(map[string]*tracepb.Span) // by id
	n := 0
	if e.Process.Name == "" {
		e.Process = c.process
	}
	ended := clip(e.Process.Name+" ended: "+e.Reason, maxEndText)
	for _, f := range all {
		scope, s, err := readRecord(f.record)
		if err != nil {
			continue
		}
		s.Attributes = append(s.Attributes, boolean(string(tracing.KeyRecovered), true))
		if !f.ended {
			s.EndTimeUnixNano = max(uint64(e.At.UnixNano()), s.StartTimeUnixNano)
			s.Attributes = append(s.Attributes, text(string(tracing.KeyErrorType), e.Type))
			s.Status = &tracepb.Status{Code: tracepb.Status_STATUS_CODE_ERROR, Message: ended}
			open[string(s.SpanId)] = s
		}
		ss := scopes[scope]
		if ss == nil {
			ss = &tracepb.ScopeSpans{Scope: &commonpb.InstrumentationScope{Name: scope}}
			scopes[scope] = ss
		}
		ss.Spans = append(ss.Spans, s)
		n++
	}
	if n == 0 {
		return nil
	}
	rs := &tracepb.ResourceSpans{
		Resource:  resourceMessage(newResource(context.Background(), currentConfig(), e.Process, e.PID).Set()),
		SchemaUrl: tracing.SchemaURL,
	}
	for _, ss := range scopes {
		rs.ScopeSpans = append(rs.ScopeSpans, ss)
	}
	b, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: []*tracepb.ResourceSpans{rs}})
	if err == nil {
		err = c.p.export(b)
	}
	if err != nil {
		otel.Handle(fmt.Errorf("tracing/otlp: spans of %s: %w", e.Process.Name, err))
		return nil
	}
	c.p.recovered.Add(uint64(n))
	return outermost(open)
}

// outermost returns the open spans that are not below another open span.
func outermost(open map[string]*tracepb.Span) []tracing.OpenSpan {
	var outer []*tracepb.Span
	for _, s := range open {
		if open[string(s.ParentSpanId)] == nil {
			outer = append(outer, s)
		}
	}
	slices.SortFunc(outer, func(a, b *tracepb.Span) int { return cmp.Compare(b.StartTimeUnixNano, a.StartTimeUnixNano) })
	var out []tracing.OpenSpan
	for _, s := range outer[:min(len(outer), tracing.MaxServed)] {
		out = append(out, tracing.OpenSpan{Name: s.Name, Start: time.Unix(0, int64(s.StartTimeUnixNano)), SpanContext: trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: trace.TraceID(s.TraceId), SpanID: trace.SpanID(s.SpanId), TraceFlags: trace.FlagsSampled, Remote: true,
		})})
	}
	return out
}
