package otlptest

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
)

// ReceivedSpan is a span as it arrived. Ids are lower-case hex, "" when absent; the
// values of attributes are their text.
type ReceivedSpan struct {
	TraceID, SpanID, ParentID string

	Name  string
	Kind  string // INTERNAL, SERVER, CLIENT, PRODUCER, CONSUMER
	Scope string // name of the instrumentation scope

	Start, End time.Time
	Error      bool   // the status is Error
	Message    string // of the status

	Attributes map[string]string
	Links      []string          // span ids
	LinkTraces []string          // the trace id of each
	Resource   map[string]string // attributes of the process
}

// Trace is the spans of one trace, in the order of their arrival.
type Trace struct {
	ID    string
	Spans []ReceivedSpan
}

// Find returns the spans with the name, in the order of their start.
func (t Trace) Find(name string) []ReceivedSpan {
	var found []ReceivedSpan
	for _, s := range t.Spans {
		if s.Name == name {
			found = append(found, s)
		}
	}
	slices.SortStableFunc(found, func(a, b ReceivedSpan) int { return a.Start.Compare(b.Start) })
	return found
}

// Parent returns the span that s is a child of, if it has arrived.
func (t Trace) Parent(s ReceivedSpan) (ReceivedSpan, bool) {
	i := slices.IndexFunc(t.Spans, func(p ReceivedSpan) bool { return s.ParentID != "" && p.SpanID == s.ParentID })
	if i < 0 {
		return ReceivedSpan{}, false
	}
	return t.Spans[i], true
}

// Has returns nil if each of the names has a span, else an error that names one that has none.
func (t Trace) Has(names ...string) error {
	for _, name := range names {
		if len(t.Find(name)) == 0 {
			return fmt.Errorf("trace %s: no span %q", t.ID, name)
		}
	}
	return nil
}

// String draws the trace as a tree, for a test's log.
func (t Trace) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "trace %s", t.ID)
	var draw func(parent ReceivedSpan, indent string)
	draw = func(parent ReceivedSpan, indent string) {
		for _, s := range t.Spans {
			if p, _ := t.Parent(s); p.SpanID != parent.SpanID {
				continue
			}
			fmt.Fprintf(&b, "\n%s%s [%s] %s %v", indent, s.Name, s.Resource["coppice.actor.path"], s.Kind, s.End.Sub(s.Start))
			if s.Error {
				fmt.Fprintf(&b, " error: %s", s.Message)
			}
			draw(s, indent+"  ")
		}
	}
	draw(ReceivedSpan{}, "  ")
	return b.String()
}

func newSpan(s *tracepb.Span, scope string, resource map[string]string) ReceivedSpan {
	links, traces := make([]string, len(s.Links)), make([]string, len(s.Links))
	for i, l := range s.Links {
		links[i], traces[i] = hex.EncodeToString(l.SpanId), hex.EncodeToString(l.TraceId)
	}
	return ReceivedSpan{
		TraceID:    hex.EncodeToString(s.TraceId),
		SpanID:     hex.EncodeToString(s.SpanId),
		ParentID:   hex.EncodeToString(s.ParentSpanId),
		Name:       s.Name,
		Kind:       strings.TrimPrefix(s.Kind.String(), "SPAN_KIND_"),
		Scope:      scope,
		Start:      time.Unix(0, int64(s.StartTimeUnixNano)),
		End:        time.Unix(0, int64(s.EndTimeUnixNano)),
		Error:      s.Status.GetCode() == tracepb.Status_STATUS_CODE_ERROR,
		Message:    s.Status.GetMessage(),
		Attributes: attributes(s.Attributes),
		Links:      links,
		LinkTraces: traces,
		Resource:   resource,
	}
}

func attributes(kvs []*commonpb.KeyValue) map[string]string {
	m := make(map[string]string, len(kvs))
	for _, kv := range kvs {
		m[kv.Key] = text(kv.Value)
	}
	return m
}

func text(v *commonpb.AnyValue) string {
	switch v := v.GetValue().(type) {
	case *commonpb.AnyValue_StringValue:
		return v.StringValue
	case *commonpb.AnyValue_BoolValue:
		return strconv.FormatBool(v.BoolValue)
	case *commonpb.AnyValue_IntValue:
		return strconv.FormatInt(v.IntValue, 10)
	case *commonpb.AnyValue_DoubleValue:
		return strconv.FormatFloat(v.DoubleValue, 'g', -1, 64)
	default:
		return fmt.Sprint(v)
	}
}
