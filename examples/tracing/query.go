package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// jaegerAPI is the address of a Jaeger's query service.
type jaegerAPI struct{ base string }

// span is a span as the query service returns it.
type span struct {
	TraceID   string `json:"traceID"`
	ID        string `json:"spanID"`
	Name      string `json:"operationName"`
	Start     int64  `json:"startTime"` // µs
	Duration  int64  `json:"duration"`  // µs
	ProcessID string `json:"processID"`
	Tags      []tag  `json:"tags"`
	Refs      []ref  `json:"references"`

	process []tag // of the trace, filled in
}

// ref is how a span refers to another one.
type ref struct {
	Type    string `json:"refType"` // CHILD_OF, FOLLOWS_FROM
	TraceID string `json:"traceID"`
	SpanID  string `json:"spanID"`
}

type tag struct {
	Key   string `json:"key"`
	Value any    `json:"value"`
}

func value(tags []tag, key string) string {
	for _, t := range tags {
		if t.Key == key {
			return fmt.Sprint(t.Value)
		}
	}
	return ""
}

// tag returns an attribute, kind or status of the span, "" if it has none.
func (s span) tag(key string) string { return value(s.Tags, key) }

// resource returns an attribute of the span's process.
func (s span) resource(key string) string { return value(s.process, key) }

func (s span) failed() bool { return s.tag("error") == "true" }

// parent returns the id of the span's parent; "" for a root.
func (s span) parent() string {
	for _, r := range s.Refs {
		if r.Type == "CHILD_OF" && r.TraceID == s.TraceID {
			return r.SpanID
		}
	}
	return ""
}

// links returns the traces and spans that the span links to.
func (s span) links() (ids [][2]string) {
	for _, r := range s.Refs {
		if r.Type == "FOLLOWS_FROM" {
			ids = append(ids, [2]string{r.TraceID, r.SpanID})
		}
	}
	return ids
}

// trace returns the spans of one trace, by their start; none when it is not known.
func (j jaegerAPI) trace(ctx context.Context, id string) ([]span, error) {
	traces, err := j.get(ctx, "/api/traces/"+id)
	if err != nil || len(traces) == 0 {
		return nil, err
	}
	return traces[0], nil
}

// find returns the traces that have a span of this name of the shop, newest last.
func (j jaegerAPI) find(ctx context.Context, name string, since time.Time) ([][]span, error) {
	q := url.Values{
		"service": {"shop"}, "operation": {name}, "limit": {"100"},
		"start": {fmt.Sprint(since.UnixMicro())}, "end": {fmt.Sprint(time.Now().UnixMicro())},
	}
	traces, err := j.get(ctx, "/api/traces?"+q.Encode())
	slices.SortFunc(traces, func(a, b []span) int { return cmp.Compare(a[0].Start, b[0].Start) })
	return traces, err
}

func (j jaegerAPI) get(ctx context.Context, path string) ([][]span, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.base+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotFound {
		return nil, nil
	}
	traces, err := readTraces(resp.Body)
	if err != nil {
		return nil, fmt.Errorf("%s: %s: %w", path, resp.Status, err)
	}
	return traces, nil
}

// readTraces reads an answer of the query service: its traces that have spans, each by
// their start.
func readTraces(r io.Reader) ([][]span, error) {
	var answer struct {
		Data []struct {
			Spans     []span `json:"spans"`
			Processes map[string]struct {
				Tags []tag `json:"tags"`
			} `json:"processes"`
		} `json:"data"`
	}
	if err := json.NewDecoder(r).Decode(&answer); err != nil {
		return nil, err
	}
	var traces [][]span
	for _, d := range answer.Data {
		for i := range d.Spans {
			d.Spans[i].process = d.Processes[d.Spans[i].ProcessID].Tags
		}
		slices.SortFunc(d.Spans, func(a, b span) int { return cmp.Compare(a.Start, b.Start) })
		if len(d.Spans) > 0 {
			traces = append(traces, d.Spans)
		}
	}
	return traces, nil
}

// poll asks every 50 ms until done returns true.
func poll(ctx context.Context, what string, ask func() (done bool, err error)) error {
	var last error
	for {
		done, err := ask()
		if done {
			return nil
		}
		if err != nil {
			last = err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (%w)", what, context.Cause(ctx), cmp.Or(last, ctx.Err()))
		}
	}
}
