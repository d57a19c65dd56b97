//go:build linux

package jobs_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/tracing"
)

// counting is a backend that exports nothing, and counts in the test's meter.
type counting struct {
	tracing.Backend
	meter *tracing.Meter
}

type countingPipeline struct {
	tracing.Pipeline
	meter *tracing.Meter
}

func (c counting) Start(ctx context.Context, p tracing.ProcessResource, up *tracing.Uplink) (tracing.Pipeline, error) {
	pl, err := c.Backend.Start(ctx, p, up)
	return countingPipeline{pl, c.meter}, err
}

func (p countingPipeline) Meter() *tracing.Meter { return p.meter }

// counted returns what is counted of jobs, a line for each series: of a histogram how many values
// it has, of an age whether there is one.
func counted(m *tracing.Meter) (lines []string) {
	for _, p := range m.Collect() {
		if !strings.HasPrefix(p.Instrument.Name, "coppice.job.") {
			continue
		}
		n := p.Value
		for _, b := range p.Buckets {
			n += int64(b)
		}
		if p.Instrument == tracing.JobsOldest {
			n = min(n, 1)
		}
		lines = append(lines, fmt.Sprintf("%s{%s} %d", p.Instrument.Name, p.Labels.Encoded(attribute.DefaultEncoder()), n))
	}
	slices.Sort(lines)
	return lines
}

// changed returns the lines of after that before has not.
func changed(before, after []string) string {
	return strings.Join(slices.DeleteFunc(slices.Clone(after), func(l string) bool { return slices.Contains(before, l) }), "\n")
}

var rewrite = flag.Bool("rewrite", false, "write the golden in testdata")

var secondsOf = regexp.MustCompile(`(_seconds":)[\d.e-]+`)

// lookAt compares what the control endpoint shows of the pool with the golden, releases its key,
// and looks for the pool in the tree. The tests of coppicectl show the golden.
func lookAt(t *testing.T, rt *coppice.Runtime) {
	t.Helper()
	h := rt.ControlHandler(coppice.ControlOptions{Writes: true})
	ask := func(method, path string) (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(method, "http://localhost/v1/"+path, nil))
		return w.Code, w.Body.String()
	}
	_, body := ask("GET", "actors/state?actor=work/queue")
	var state struct{ Value json.RawMessage }
	var pretty bytes.Buffer
	if err := errors.Join(json.Unmarshal([]byte(body), &state), json.Indent(&pretty, secondsOf.ReplaceAll(state.Value, []byte("${1}1.5")), "", "  ")); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	const golden = "testdata/state.json"
	got := pretty.String() + "\n"
	if *rewrite {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(golden); err != nil || got != string(want) {
		t.Errorf("got\n%swant\n%s%v", got, want, err)
	}
	const line = "; jobs: 1 waiting, 1 running"
	if tree := rt.Snapshot().String(); !strings.Contains(tree, line+", 1 quarantined\n") {
		t.Error(tree)
	}
	if _, body := ask("GET", "actors"); !strings.Contains(body, `"kind":"jobs","summary":"1 waiting, 1 running, 1 quarantined","path":"work/queue"`) {
		t.Error(body)
	}
	if _, tar := ask("GET", "bundle"); !strings.Contains(tar, "actors/work-queue.json") || !strings.Contains(tar, `"key": "poison"`) {
		t.Error("the bundle does not have the queue's state")
	}
	const operate = "actors/operate?actor=work/queue&what=poison&do="
	if status, body := ask("POST", operate+"release"); status != http.StatusOK {
		t.Error(status, body)
	}
	if tree := rt.Snapshot().String(); !strings.Contains(tree, line+"\n") {
		t.Error(tree)
	}
	for _, do := range []string{"release", "burn"} { // it is not quarantined any more
		if status, body := ask("POST", operate+do); status != http.StatusConflict {
			t.Error(status, body)
		}
	}
}

// TestSeen has calls end in each way, and looks at what is counted: all of it is there, and zero,
// before the first call, and it does not begin again with the queue.
func TestSeen(t *testing.T) {
	notShort(t)
	meter := tracing.NewMeter()
	tracing.Register(counting{tracing.Own(noop.NewTracerProvider()), meter})
	t.Cleanup(func() { tracing.Register(nil) })
	rt := tree(t, jobs.Config{Queue: 1, MaxBytes: 1 << 20, Poison: jobs.Poison{Deaths: 1}})
	first := counted(meter)
	for _, l := range first {
		if !strings.HasSuffix(l, " 0") {
			t.Error("before the first call:", l)
		}
	}
	for _, c := range []struct {
		order
		jobs.Options
	}{
		{order: order{Do: "answer"}},
		{order: order{Do: "error"}},
		{order: order{Do: "panic"}},
		{order{Do: "wait"}, jobs.Options{Timeout: time.Millisecond, Grace: math.MaxInt64}},
		{order{Do: "die once"}, jobs.Options{Idempotent: true}},
		{order{Do: "signal", N: int(syscall.SIGKILL)}, jobs.Options{Key: "poison"}},
		{order{Do: "answer"}, jobs.Options{Key: "poison"}},
	} {
		_, _ = do(t, rt, c.order, c.Options) // TestEnds has the errors
	}
	_, err := jobs.Call[[]byte](t.Context(), rt, "work/bytes", make([]byte, 1<<20+1))
	fails(t, err, func(*jobs.TooLargeError) bool { return true })
	_, err = jobs.Call[report](t.Context(), rt, "work/none", order{})
	fails(t, err, func(*jobs.RefusedError) bool { return true })

	began := make(chan struct{}, 1)
	busy := func(ctx context.Context) *jobs.Pending[report] {
		p := jobs.Start[report](ctx, rt, "work", order{Do: "report and wait"}, jobs.Options{Key: "a.png", Grace: math.MaxInt64, Progress: jobs.OnProgress(func(int) { began <- struct{}{} })})
		<-began
		return p
	}
	await := func(what string, holds func(jobs.Status) bool) {
		t.Helper()
		runtimetest.Eventually(t, what, func() bool {
			s, err := jobs.StatusOf(t.Context(), rt, "work")
			return err == nil && holds(s)
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	runs := busy(ctx)
	waiting, leave := context.WithCancel(t.Context())
	waits := jobs.Start[report](waiting, rt, "work", order{Do: "answer"}, jobs.Options{})
	await("a call that waits", func(s jobs.Status) bool { return s.Waiting == 1 })
	_, err = do(t, rt, order{Do: "answer"}, jobs.Options{})
	fails(t, err, func(*jobs.FullError) bool { return true })
	for _, level := range []string{"oldest", "quarantined", "running", "waiting"} {
		if got := counted(meter); !slices.Contains(got, "coppice.job."+level+"{coppice.pool.name=work} 1") {
			t.Errorf("while a call runs and one waits, %s is not 1:\n%s", level, strings.Join(got, "\n"))
		}
	}
	lookAt(t, rt)
	leave()
	_, _ = waits.Wait()
	await("the end of the call that waited", func(s jobs.Status) bool { return s.Ends["cancelled"] == 1 })
	cancel()
	_, _ = runs.Wait()
	await("the end of the call that ran", func(s jobs.Status) bool { return s.Running == 0 && s.Ends["cancelled"] == 2 })

	gone := busy(t.Context())
	if err := rt.TerminateChild(t.Context(), "work/queue"); err != nil {
		t.Fatal(err)
	}
	_, err = gone.Wait()
	fails(t, err, func(*jobs.GoneError) bool { return true })
	for ev := range rt.Events(0).All(t.Context()) {
		if ev.Kind == coppice.ChildStopped && ev.Path == "work/queue" {
			if !ev.Reason.IsNormal() {
				t.Error(ev)
			}
			break
		}
	}
	if err := rt.RestartChild(t.Context(), "work/queue"); err != nil {
		t.Fatal(err)
	}
	if _, err := do(t, rt, order{Do: "answer"}, jobs.Options{}); err != nil {
		t.Error(err)
	}
	last := counted(meter)
	if len(last) != len(first) {
		t.Errorf("%d series, before the first call %d", len(last), len(first))
	}
	const want = `coppice.job.calls{coppice.job.outcome=answer,coppice.pool.name=work} 3
coppice.job.calls{coppice.job.outcome=cancelled,coppice.pool.name=work} 2
coppice.job.calls{coppice.job.outcome=deadline,coppice.pool.name=work} 1
coppice.job.calls{coppice.job.outcome=died,coppice.pool.name=work} 1
coppice.job.calls{coppice.job.outcome=error,coppice.pool.name=work} 1
coppice.job.calls{coppice.job.outcome=full,coppice.pool.name=work} 1
coppice.job.calls{coppice.job.outcome=gone,coppice.pool.name=work} 1
coppice.job.calls{coppice.job.outcome=panic,coppice.pool.name=work} 1
coppice.job.calls{coppice.job.outcome=quarantined,coppice.pool.name=work} 1
coppice.job.calls{coppice.job.outcome=refused,coppice.pool.name=work} 1
coppice.job.calls{coppice.job.outcome=too large,coppice.pool.name=work} 1
coppice.job.deaths{coppice.exit.kind=exited,coppice.pool.name=work} 1
coppice.job.deaths{coppice.exit.kind=signaled,coppice.pool.name=work} 1
coppice.job.queue.duration{coppice.pool.name=work} 10
coppice.job.retries{coppice.pool.name=work} 1
coppice.job.run.duration{coppice.pool.name=work} 10`
	if got := changed(first, last); got != want {
		t.Errorf("at the end there is\n%s", got)
	}
}

// TestTraceOfDeaths: a call that runs again has a span for each wait, of which the later says how
// the worker ended; one that does not has that in its own span; and one that is refused has the
// key.
func TestTraceOfDeaths(t *testing.T) {
	notShort(t)
	spans := tracetest.NewSpanRecorder()
	before := otel.GetTracerProvider()
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	defer otel.SetTracerProvider(before)
	rt := tree(t, jobs.Config{Poison: jobs.Poison{Deaths: 1}})
	_, err := do(t, rt, order{Do: "die once"}, jobs.Options{Idempotent: true})
	if err != nil {
		t.Error(err)
	}
	for range 2 {
		_, _ = do(t, rt, order{Do: "exit", N: 5}, jobs.Options{Key: "poison"})
	}
	calls := map[trace.TraceID]trace.SpanID{}
	for _, s := range spans.Ended() {
		if s.Name() == tracing.SpanCall {
			calls[s.SpanContext().TraceID()] = s.SpanContext().SpanID()
		}
	}
	var got []string
	for _, s := range spans.Ended() {
		set := func(attrs []attribute.KeyValue) string {
			set := attribute.NewSet(attrs...)
			return "{" + set.Encoded(attribute.DefaultEncoder()) + "}"
		}
		line := s.Name() + set(s.Attributes())
		for _, e := range s.Events() {
			line += " " + e.Name + set(e.Attributes)
		}
		if s.Status().Code == codes.Error {
			line += " failed: " + s.Status().Description
		}
		got = append(got, line)
		if s.Name() == tracing.SpanQueued && s.Parent().SpanID() != calls[s.SpanContext().TraceID()] {
			t.Errorf("%s is not under its %s", line, tracing.SpanCall)
		}
	}
	const want = `queued{coppice.handoff.target=work/workers/0,coppice.job.run=1}
queued{coppice.handoff.target=work/workers/0,coppice.job.run=2} exit{coppice.child.path=work/workers/0,coppice.exit.reason=exit code 3}
call{coppice.job.function=work,coppice.pool.name=work}
queued{coppice.handoff.target=work/workers/0,coppice.job.run=1}
call{coppice.job.function=work,coppice.job.key=poison,coppice.pool.name=work,error.type=*jobs.DiedError} exit{coppice.child.path=work/workers/0,coppice.exit.reason=exit code 5} failed: jobs: worker work/workers/0 died with the call: exit code 5
queued{error.type=quarantined} quarantined{coppice.exit.reason=exit code 5,coppice.job.key=poison} failed: exit code 5
call{coppice.job.function=work,coppice.job.key=poison,coppice.pool.name=work,error.type=*jobs.QuarantinedError} failed: jobs: key "poison" is quarantined, for 1 deaths, the last: exit code 5`
	if got := strings.Join(got, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
