package telemetry

import (
	"context"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// maxEvents bounds the events of the tree that wait to become spans. Beyond it spans are lost, but
// no restart is held up.
const maxEvents = 1024

// An EventInfo is what the Info of a supervisor's event contains.
type EventInfo struct {
	ID, PID int        // of a child that is a worker or the listener process
	Pool    PoolChange // of a pool
}

// A PoolChange is a change inside a pool that its supervisor does not see.
type PoolChange struct {
	Kind       PoolChangeKind
	Path       string // of the worker, or the pool
	Why        string
	ID         int
	PID        int
	Generation int
	Took       time.Duration
	Reason     supervisor.Reason
}

// PoolChangeKind is the kind of a change inside a pool.
type PoolChangeKind uint8

// The kinds of changes that become spans.
const (
	NoChange      PoolChangeKind = iota
	WorkerStarted                // it has the slot of a worker that still runs, or no slot yet: Took
	WorkerFailed                 // it ended before it was ready: Reason
	DrainBegan
	DrainEnded // Reason
)

// Lifecycle makes spans of the events of a tree, one span for each thing that lasts, and counts the
// events. No supervisor waits for it. A nil Lifecycle does nothing.
type Lifecycle struct {
	infoOf   func(any) EventInfo
	provider trace.TracerProvider
	tracer   *tracing.Tracer // of provider; nil when spans are off
	meter    *tracing.Meter  // nil when metrics are off
	done     chan struct{}   // closed when the last event of the tree is recorded

	mu         sync.Mutex
	served     map[string][]trace.SpanContext // by name: the spans that a child was serving when it ended
	operations []*Operation                   // the latest, newest last

	// The maps below belong to the goroutine of follow. Their keys are paths.
	exits    map[string]supervisor.Event // a restart may follow
	restarts map[string]tracing.Span
	stops    map[string]tracing.Span
	giveUps  map[string]tracing.Span
	drains   map[int]tracing.Span // of workers without a slot, by ID
}

// Follow begins to follow the events of tree. It returns nil when neither spans nor metrics are on.
// infoOf reads the Info of an event, on the one goroutine that follows the events; that goroutine
// ends with the tree.
func Follow(p tracing.Pipeline, tree *supervisor.Supervisor, infoOf func(any) EventInfo) *Lifecycle {
	l := &Lifecycle{
		infoOf: infoOf, provider: p.LifeProvider(),
		tracer: tracing.New(p.LifeProvider()), meter: p.Meter(), done: make(chan struct{}),
		served: map[string][]trace.SpanContext{},
		exits:  map[string]supervisor.Event{}, restarts: map[string]tracing.Span{},
		stops: map[string]tracing.Span{}, giveUps: map[string]tracing.Span{},
		drains: map[int]tracing.Span{},
	}
	if l.tracer == nil && l.meter == nil {
		return nil
	}
	events := tree.Subscribe(maxEvents)
	go func() {
		defer close(l.done)
		for e := range events.Events(context.Background()) {
			l.record(e)
		}
		l.flush()
	}()
	return l
}

// Wait waits until the last event is recorded.
func (l *Lifecycle) Wait() {
	if l != nil {
		<-l.done
	}
}

// KeepServed keeps the spans that a child was serving when it ended; the span of its end or restart
// links to them. It must be called before the supervisor can learn of the end.
func (l *Lifecycle) KeepServed(name string, served ...tracing.OpenSpan) {
	if l == nil || len(served) == 0 {
		return
	}
	contexts := make([]trace.SpanContext, len(served))
	for i, s := range served {
		contexts[i] = s.SpanContext
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.served[name] = contexts
}

// takeServed removes and returns what KeepServed has kept of a child.
func (l *Lifecycle) takeServed(path string) []trace.SpanContext {
	name := inTree(path)
	if i := strings.LastIndexByte(name, '/'); i >= 0 && name[:i] == childproto.ListenersName {
		name = name[i+1:]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	served := l.served[name]
	delete(l.served, name)
	return served
}

// inTree returns the path of a supervisor's event without the root, as users write it.
func inTree(path string) string { return strings.TrimPrefix(path, childproto.MasterName+"/") }

// record makes spans and counts of one event.
func (l *Lifecycle) record(e supervisor.Event) {
	path := inTree(e.Path)
	at := e.Time
	switch e.Kind {
	case supervisor.ChildStarted:
		if s, ok := l.restarts[e.Path]; ok {
			delete(l.restarts, e.Path)
			l.begin(tracing.SpanStart, path, at.Add(-e.Took), s, nil, l.instanceOf(e)...).EndAt(at, "", "")
			s.Event(tracing.EventReady, at)
			s.EndAt(at, "", "")
			return
		}
		s := l.begin(tracing.SpanStart, path, at.Add(-e.Took), l.operation(path, at.Add(-e.Took)), nil, l.instanceOf(e)...)
		s.Event(tracing.EventReady, at)
		s.EndAt(at, "", "")
	case supervisor.ChildStartFailed:
		parent, again := l.restarts[e.Path]
		if !again {
			parent = l.operation(path, at.Add(-e.Took))
		}
		kind := e.Reason.Kind.String()
		l.begin(tracing.SpanStart, path, at.Add(-e.Took), parent, nil, tracing.KeyExitReason.String(e.Reason.String())).
			EndAt(at, kind, e.Reason.String())
		if again {
			delete(l.restarts, e.Path)
			parent.EndAt(at, kind, "the start failed: "+e.Reason.String())
		}
	case supervisor.ChildExited:
		l.count(tracing.Exits, e.Supervisor, e.Reason)
		l.exits[e.Path] = e
		if !e.Fault && e.Reason.IsNormal() {
			l.exitSpan(e.Path)
		}
	case supervisor.ChildRestarting:
		l.restarting(e)
	case supervisor.ChildRemoved:
		l.exitSpan(e.Path)
	case supervisor.ChildStopping:
		l.exitSpan(e.Path)
		l.stops[e.Path] = l.begin(tracing.SpanStop, path, at, l.operation(path, at), nil, causeOf(e)...)
	case supervisor.ChildStopped:
		l.takeServed(e.Path) // no span links to requests that a stop has cut
		l.count(tracing.Exits, e.Supervisor, e.Reason)
		s, ok := l.stops[e.Path]
		if !ok {
			return
		}
		delete(l.stops, e.Path)
		s.Set(tracing.KeyExitReason.String(e.Reason.String()))
		if e.Reason.Kind == supervisor.Killed {
			s.Event(tracing.EventKill, at)
		}
		if e.Fault {
			s.EndAt(at, e.Reason.Kind.String(), e.Reason.String())
			return
		}
		s.EndAt(at, "", "")
	case supervisor.SupervisorGaveUp:
		ends := l.exitSpansUnder(e.Path)
		s := l.begin(tracing.SpanGiveUp, path, at, tracing.Span{}, ends, causeOf(e)...)
		s.Set(tracing.KeyExitReason.String(e.Reason.String()))
		l.giveUps[e.Path] = s
	case supervisor.SupervisorDown:
		l.exitSpansUnder(e.Path)
		if s, ok := l.giveUps[e.Path]; ok {
			delete(l.giveUps, e.Path)
			l.KeepServed(path, tracing.OpenSpan{SpanContext: s.Context()}) // the restart above links to it
			s.EndAt(at, supervisor.GaveUp.String(), e.Reason.String())
		}
	case supervisor.ChildNoted:
		l.recordPool(l.infoOf(e.Info).Pool, at)
	case supervisor.ChildIgnored, supervisor.ChildLeaked, supervisor.ChildLeakEnded, supervisor.SupervisorUp, supervisor.SupervisorPersists:
	}
}

// recordPool makes spans of a change inside a pool: starts of workers, and drains.
func (l *Lifecycle) recordPool(e PoolChange, at time.Time) {
	path := e.Path
	attrs := []attribute.KeyValue{
		tracing.KeyPoolWhy.String(e.Why), tracing.KeyProcessID.Int(e.ID), tracing.KeyProcessPID.Int(e.PID), tracing.KeyGeneration.Int(e.Generation),
	}
	switch e.Kind {
	case WorkerStarted:
		from := at.Add(-e.Took)
		s := l.begin(tracing.SpanStart, path, from, l.operationFor(e.Why, path, from), nil, attrs...)
		s.Event(tracing.EventReady, at)
		s.EndAt(at, "", "")
	case WorkerFailed:
		l.begin(tracing.SpanStart, path, at, l.operationFor(e.Why, path, at), l.takeServed(path), attrs...).EndAt(at, e.Reason.Kind.String(), e.Reason.String())
	case DrainBegan:
		if _, ok := l.stops[childproto.MasterName+"/"+path]; ok || e.Why == "stop" {
			return // ChildStopping begins that span
		}
		l.drains[e.ID] = l.begin(tracing.SpanStop, path, at, l.operationFor(e.Why, path, at), nil, attrs...)
	case DrainEnded:
		s, ok := l.drains[e.ID]
		if !ok {
			return
		}
		delete(l.drains, e.ID)
		l.takeServed(path) // no span links to requests that a stop has cut
		s.Set(tracing.KeyExitReason.String(e.Reason.String()))
		if e.Reason.IsNormal() {
			s.EndAt(at, "", "")
			return
		}
		s.EndAt(at, e.Reason.Kind.String(), e.Reason.String())
	case NoChange:
	}
}

// restarting begins the span of a restart, at the end of the child that is restarted. The span
// links to the spans that the child was serving.
func (l *Lifecycle) restarting(e supervisor.Event) {
	path := inTree(e.Path)
	began, reason := e.Time, supervisor.Reason{}
	exit, own := l.exits[e.Path]
	if !own && e.Cause != "" { // restarted because another child of its group ended
		exit = l.exits[e.Cause]
	}
	if exit.Kind == supervisor.ChildExited {
		began, reason = exit.Time, exit.Reason
	}
	l.count(tracing.Restarts, e.Supervisor, reason)
	delete(l.exits, e.Path)
	if old, ok := l.restarts[e.Path]; ok { // its start was cancelled
		old.EndAt(e.Time, "cancelled", "")
	}
	attrs := append(causeOf(e),
		tracing.KeyRestartAttempt.Int(e.Attempt), tracing.KeyRestartDelay.Float64(e.Delay.Seconds()),
		tracing.KeyRestartLeft.Int(e.Left), tracing.KeyRestartMax.Int(e.Max),
		tracing.KeyExitReason.String(reason.String()))
	s := l.begin(tracing.SpanRestart, path, began, l.operation(path, began), l.takeServed(e.Path), attrs...)
	if own {
		s.Event(tracing.EventExit, began, tracing.KeyExitReason.String(reason.String()))
	}
	l.restarts[e.Path] = s
}

// exitSpan records an end that no restart follows, and returns the context of its span.
func (l *Lifecycle) exitSpan(path string) trace.SpanContext {
	e, ok := l.exits[path]
	if !ok {
		return trace.SpanContext{}
	}
	delete(l.exits, path)
	errType, text := "", ""
	if !e.Reason.IsNormal() {
		errType, text = e.Reason.Kind.String(), e.Reason.String()
	}
	s := l.begin(tracing.SpanExit, inTree(path), e.Time, l.operation(inTree(path), e.Time), l.takeServed(path),
		append(l.instanceOf(e), tracing.KeyExitReason.String(e.Reason.String()))...)
	s.EndAt(e.Time, errType, text)
	return s.Context()
}

// exitSpansUnder records the ends below a supervisor that is ending, and returns the contexts of
// their spans.
func (l *Lifecycle) exitSpansUnder(path string) (ends []trace.SpanContext) {
	for p := range l.exits {
		if strings.HasPrefix(p, path+"/") {
			if sc := l.exitSpan(p); sc.IsValid() && len(ends) < tracing.MaxServed {
				ends = append(ends, sc)
			}
		}
	}
	for p, s := range l.restarts {
		if strings.HasPrefix(p, path+"/") {
			delete(l.restarts, p)
			s.EndAt(time.Now(), supervisor.GaveUp.String(), "its supervisor is ending")
		}
	}
	return ends
}

// flush ends the spans that are open when the tree has ended.
func (l *Lifecycle) flush() {
	for p := range l.exits {
		l.exitSpan(p)
	}
	for _, open := range []map[string]tracing.Span{l.restarts, l.stops, l.giveUps} {
		for _, s := range open {
			s.EndAt(time.Now(), "", "")
		}
	}
	for _, s := range l.drains {
		s.EndAt(time.Now(), "", "")
	}
}

func (l *Lifecycle) begin(name, path string, at time.Time, parent tracing.Span, links []trace.SpanContext, attrs ...attribute.KeyValue) tracing.Span {
	return l.tracer.Begin(name, tracing.LifecycleSpan{Path: path, At: at, Parent: parent, Links: links, Attributes: attrs})
}

// Count adds n to what i has counted.
func (l *Lifecycle) Count(i *tracing.Instrument, n int, labels ...attribute.KeyValue) {
	if l != nil {
		l.meter.Counter(i, labels...).Add(int64(n))
	}
}

func (l *Lifecycle) count(i *tracing.Instrument, supervisorPath string, r supervisor.Reason) {
	l.meter.Counter(i, tracing.KeyChildPath.String(inTree(supervisorPath)), tracing.KeyReason.String(r.Kind.String())).Add(1)
}

func causeOf(e supervisor.Event) []attribute.KeyValue {
	if e.Cause == "" || e.Cause == e.Path {
		return nil
	}
	return []attribute.KeyValue{tracing.KeyRestartCause.String(inTree(e.Cause))}
}

func (l *Lifecycle) instanceOf(e supervisor.Event) []attribute.KeyValue {
	attrs := []attribute.KeyValue{tracing.KeyIncarnation.Int64(int64(e.Incarnation))}
	if i := l.infoOf(e.Info); i.ID != 0 {
		attrs = append(attrs, tracing.KeyProcessID.Int(i.ID), tracing.KeyProcessPID.Int(i.PID))
	}
	return attrs
}
