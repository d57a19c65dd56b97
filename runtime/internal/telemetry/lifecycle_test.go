package telemetry

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// recording is a Lifecycle whose spans and counts the test can read; the test passes it events.
func recording(t *testing.T) (*Lifecycle, *tracetest.SpanRecorder) {
	sr := tracetest.NewSpanRecorder()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(sr))
	tracing.Register(tracing.Own(tp))
	t.Cleanup(func() { tracing.Register(nil) })
	p, err := tracing.Start(t.Context(), tracing.ProcessResource{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := supervisor.Start(t.Context(), supervisor.Spec{Name: childproto.MasterName}, supervisor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	l := Follow(p, tree, func(v any) EventInfo { i, _ := v.(EventInfo); return i })
	l.meter = tracing.NewMeter()
	tree.Stop()
	l.Wait() // the test passes the further events on its own goroutine
	sr.Reset()
	return l, sr
}

func openSpan(n byte) trace.SpanContext {
	return trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{n}, SpanID: trace.SpanID{n}, TraceFlags: trace.FlagsSampled})
}

// show is a span on a line: name, path, parent, error, events, number of links.
func show(s sdktrace.ReadOnlySpan, all []sdktrace.ReadOnlySpan) string {
	var b strings.Builder
	b.WriteString(s.Name())
	for _, kv := range s.Attributes() {
		if kv.Key == tracing.KeyChildPath {
			b.WriteString(" " + kv.Value.AsString())
		}
	}
	for _, p := range all {
		if p.SpanContext().SpanID() == s.Parent().SpanID() {
			b.WriteString(" under " + p.Name())
		}
	}
	for _, kv := range s.Attributes() {
		if kv.Key == tracing.KeyErrorType {
			b.WriteString(" failed: " + kv.Value.AsString())
		}
	}
	for _, e := range s.Events() {
		b.WriteString(" " + e.Name)
	}
	if n := len(s.Links()); n > 0 {
		b.WriteString(" links")
	}
	return b.String()
}

func TestLifeAsSpans(t *testing.T) {
	at := time.Unix(1700000000, 0)
	event := func(k supervisor.EventKind, path string, ms int, f func(*supervisor.Event)) supervisor.Event {
		path = "master/" + path
		e := supervisor.Event{Kind: k, Path: path, Supervisor: path[:strings.LastIndexByte(path, '/')], Time: at.Add(time.Duration(ms) * time.Millisecond), Incarnation: 1}
		if f != nil {
			f(&e)
		}
		return e
	}
	killed := func(e *supervisor.Event) {
		e.Reason, e.Fault = supervisor.Reason{Kind: supervisor.Signaled, Signal: 9}, true
	}
	for _, row := range []struct {
		name   string
		served string // name of a child that was serving a span
		tell   []supervisor.Event
		want   []string
	}{
		{"a start", "", []supervisor.Event{
			event(supervisor.ChildStarted, "web/0", 10, func(e *supervisor.Event) { e.Took = 10 * time.Millisecond }),
		}, []string{"start web/0 ready"}},
		{"a start that fails", "", []supervisor.Event{
			event(supervisor.ChildStartFailed, "web/0", 10, func(e *supervisor.Event) {
				e.Reason = supervisor.Reason{Kind: supervisor.Error, Cause: errors.New("boom")}
			}),
		}, []string{"start web/0 failed: error"}},
		{"a crash and its restart", "web/0", []supervisor.Event{
			event(supervisor.ChildExited, "web/0", 0, killed),
			event(supervisor.ChildRestarting, "web/0", 1, func(e *supervisor.Event) { e.Attempt, e.Left, e.Max = 1, 9, 10 }),
			event(supervisor.ChildStarted, "web/0", 9, func(e *supervisor.Event) { e.Took = 8 * time.Millisecond }),
		}, []string{"start web/0 under restart", "restart web/0 exit ready links"}},
		{"a restart whose start fails, and the next one", "", []supervisor.Event{
			event(supervisor.ChildExited, "web/0", 0, killed),
			event(supervisor.ChildRestarting, "web/0", 1, nil),
			event(supervisor.ChildStartFailed, "web/0", 9, func(e *supervisor.Event) { e.Reason.Kind = supervisor.Error }),
			event(supervisor.ChildRestarting, "web/0", 10, nil),
			event(supervisor.ChildStarted, "web/0", 19, nil),
		}, []string{"start web/0 under restart failed: error", "restart web/0 failed: error exit", "start web/0 under restart", "restart web/0 ready"}},
		{"an end without a restart", "job", []supervisor.Event{
			event(supervisor.ChildExited, "job", 0, killed),
			event(supervisor.ChildRemoved, "job", 0, nil),
		}, []string{"exit job failed: signaled links"}},
		{"a normal end", "", []supervisor.Event{event(supervisor.ChildExited, "job", 0, nil)}, []string{"exit job"}},
		{"a stop", "", []supervisor.Event{
			event(supervisor.ChildStopping, "web/0", 0, nil),
			event(supervisor.ChildStopped, "web/0", 5, func(e *supervisor.Event) { e.Reason.Kind = supervisor.Shutdown }),
		}, []string{"stop web/0"}},
		{"a stop that ends in a kill", "web/0", []supervisor.Event{
			event(supervisor.ChildStopping, "web/0", 0, nil),
			event(supervisor.ChildStopped, "web/0", 5, func(e *supervisor.Event) { e.Reason.Kind, e.Fault = supervisor.Killed, true }),
		}, []string{"stop web/0 failed: killed kill"}},
		{"a group restarted because of one", "", []supervisor.Event{
			event(supervisor.ChildExited, "web/1", 0, killed),
			event(supervisor.ChildStopping, "web/2", 1, func(e *supervisor.Event) { e.Cause = "master/web/1" }),
			event(supervisor.ChildStopped, "web/2", 2, func(e *supervisor.Event) { e.Reason.Kind = supervisor.Shutdown }),
			event(supervisor.ChildRestarting, "web/1", 3, nil),
			event(supervisor.ChildStarted, "web/1", 4, nil),
			event(supervisor.ChildStarted, "web/2", 5, func(e *supervisor.Event) { e.Cause = "master/web/1" }),
		}, []string{"stop web/2", "start web/1 under restart", "restart web/1 exit ready", "start web/2 ready"}},
		{"escalation", "web/0", []supervisor.Event{
			event(supervisor.ChildExited, "web/0", 0, killed),
			event(supervisor.SupervisorGaveUp, "web", 1, func(e *supervisor.Event) {
				e.Reason.Kind, e.Cause = supervisor.GaveUp, "master/web/0"
			}),
			event(supervisor.SupervisorDown, "web", 2, nil),
			event(supervisor.ChildExited, "web", 3, func(e *supervisor.Event) { e.Reason.Kind, e.Fault = supervisor.GaveUp, true }),
			event(supervisor.ChildRestarting, "web", 3, nil),
			event(supervisor.ChildStarted, "web", 9, nil),
		}, []string{"exit web/0 failed: signaled links", "give up web failed: gave up links", "start web under restart", "restart web exit ready links"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			l, sr := recording(t)
			if row.served != "" {
				l.KeepServed(row.served, tracing.OpenSpan{SpanContext: openSpan(1)})
			}
			for _, e := range row.tell {
				l.record(e)
			}
			l.flush()
			var got []string
			for _, s := range sr.Ended() {
				got = append(got, show(s, sr.Ended()))
				if s.EndTime().Before(s.StartTime()) {
					t.Errorf("%s ends before it starts", s.Name())
				}
			}
			if !slices.Equal(got, row.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(row.want, "\n"))
			}
			if len(l.served) != 0 {
				t.Errorf("kept for nobody: %v", l.served)
			}
		})
	}
}

// What happens to a branch during an operation on it is part of the operation's trace.
func TestOperation(t *testing.T) {
	l, sr := recording(t)
	reload := l.BeginOperation(tracing.SpanReload, "", nil, tracing.KeyReloadFrom.Int(1), tracing.KeyReloadTo.Int(2))
	scale := l.BeginOperation(tracing.SpanScale, "web", nil, tracing.KeyScaleFrom.Int(2), tracing.KeyScaleTo.Int(3))
	pool := func(k PoolChangeKind, worker string, id int, why string) {
		l.record(supervisor.Event{Kind: supervisor.ChildNoted, Path: "master/web", Supervisor: "master", Time: time.Now(), Info: EventInfo{Pool: PoolChange{Kind: k, Path: worker, ID: id, Why: why}}})
	}
	started := func(path string) {
		l.record(supervisor.Event{Kind: supervisor.ChildStarted, Path: "master/" + path, Supervisor: "master", Time: time.Now()})
	}
	started("web/2")
	started("webbing/0")
	scale.End(nil)
	pool(WorkerStarted, "web/3", 7, "reload")
	pool(DrainBegan, "web/3", 3, "reload")
	pool(DrainBegan, "web/9", 9, "stop") // its supervisor reports this one
	pool(DrainEnded, "web/9", 9, "")
	pool(WorkerFailed, "web/5", 8, "reload")
	reload.End(errors.New("not ready in time"))
	pool(DrainEnded, "web/3", 3, "") // after the reload that it is part of
	pool(WorkerStarted, "web/spare", 10, "")
	started("web/4")
	want := []string{
		"start web/2 under scale ready", "start webbing/0 under reload ready", "scale web",
		"start web/3 under reload ready", "start web/5 under reload failed: normal", "reload  failed: *errors.errorString",
		"stop web/3 under reload", "start web/spare ready", "start web/4 ready",
	}
	var got []string
	for _, s := range sr.Ended() {
		got = append(got, show(s, sr.Ended()))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	var none *Lifecycle // spans and metrics are off
	o := none.BeginOperation(tracing.SpanReload, "", nil)
	o.End(context.Canceled)
	none.KeepServed("web/0")
	none.Wait()
}

// TestUpgradeSpans: the spans of an upgrade are made at its end, wherever that is; what starts
// meanwhile, and the reload, are parts of the step that is under way.
func TestUpgradeSpans(t *testing.T) {
	began := time.Now().Add(-time.Minute)
	u := Upgrade{Began: began}
	u.Ended(tracing.SpanCheck, began.Add(time.Second))
	u.Ended(tracing.SpanExec, began.Add(3*time.Second))
	failed := errors.New("it cannot serve")
	reload := func(l *Lifecycle, s *UpgradeSpans) {
		if l != nil {
			l.record(supervisor.Event{Kind: supervisor.ChildStarted, Path: "master/new", Supervisor: "master", Time: time.Now()})
		}
		l.BeginOperation(tracing.SpanReload, "", s.Step()).End(nil)
	}
	for _, tt := range []struct {
		name string
		do   func(l *Lifecycle)
		want []string
	}{
		{"it succeeds", func(l *Lifecycle) {
			s := l.BeginUpgrade(u, tracing.SpanRoll)
			reload(l, s)
			s.End(nil)
		}, []string{"check  under upgrade", "exec  under upgrade", "start new under roll ready", "reload  under roll", "roll  under upgrade", "upgrade "}},
		{"it fails before the exec", func(l *Lifecycle) {
			l.BeginUpgrade(Upgrade{Began: began}, tracing.SpanCheck).End(failed)
		}, []string{"check  under upgrade failed: check", "upgrade  failed: check"}},
		{"its trial fails", func(l *Lifecycle) {
			l.BeginUpgrade(u, tracing.SpanTrial).EndBack(began.Add(4*time.Second), failed)
		}, []string{"check  under upgrade", "exec  under upgrade", "roll back  under upgrade", "trial  under upgrade failed: trial", "upgrade  failed: trial"}},
		{"its roll fails", func(l *Lifecycle) {
			s := l.BeginUpgrade(u, tracing.SpanRoll)
			s.End(failed)
			back := Upgrade{Began: time.Now(), Under: s.Carrier()}
			back.Ended(tracing.SpanCheck, time.Now())
			l.BeginUpgrade(back, tracing.SpanTrial).End(nil)
		}, []string{
			"check  under upgrade", "exec  under upgrade", "roll  under upgrade failed: roll", "upgrade  failed: roll",
			"check  under roll back", "trial  under roll back", "roll back  under upgrade",
		}},
	} {
		l, sr := recording(t)
		tt.do(l)
		var got []string
		for _, s := range sr.Ended() {
			got = append(got, show(s, sr.Ended()))
			if s.Name() == tracing.SpanUpgrade && (!s.StartTime().Equal(began) || s.EndTime().Before(began.Add(time.Minute))) {
				t.Errorf("%s: it lasts from %v to %v", tt.name, s.StartTime(), s.EndTime())
			}
			if s.Name() == tracing.SpanTrial && s.Status().Code == codes.Error && (s.StartTime().Sub(began) != 3*time.Second || s.EndTime().Sub(began) != 4*time.Second) {
				t.Errorf("%s: the trial lasts from %v to %v", tt.name, s.StartTime(), s.EndTime())
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.name, strings.Join(got, "\n"), strings.Join(tt.want, "\n"))
		}
	}
	var none *Lifecycle // spans and metrics are off
	s := none.BeginUpgrade(u, tracing.SpanTrial)
	reload(none, s)
	s.EndBack(began, failed)
	if s.End(nil); s.Carrier() != nil {
		t.Error("there is a carrier")
	}
}
