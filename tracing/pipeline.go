package tracing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// ErrPayload is returned by ChildTelemetry.Receive for bytes that are not of their kind, or
// if nothing is exported.
var ErrPayload = errors.New("tracing: unusable payload")

// ProcessResource identifies a process of the tree. It becomes the resource of the process's spans.
type ProcessResource struct {
	Role        string // master, listener, worker
	Name        string // registered name: master, listener/http, web/0
	ID          int    // never reused; the master's is 0
	Slot        int    // a worker's place in its pool; -1 when it has none
	Generation  int    // the reload that it belongs to
	Incarnation int    // counts the starts of what has this name
	Shared      bool   // a goroutine of the master, not a process
}

// PayloadKind is what the bytes of a child's payload are.
type PayloadKind uint8

// The kinds of payload.
const (
	Spans   PayloadKind = iota // finished spans: OTLP bytes (TracesData)
	Metrics                    // everything that the child has counted so far: OTLP bytes (MetricsData)
)

// Uplink is a child process's connection to its master.
type Uplink struct {
	// Send sends a payload to the master, which gives it to ChildTelemetry.Receive,
	// each kind in order. It takes ownership of the bytes. It may block: spans then wait
	// in a bounded queue, and are dropped and counted when that is full. A payload for
	// which it returns an error is dropped and counted.
	Send func(kind PayloadKind, b []byte) error

	// Table is the file that ChildTelemetry.Table returned in the master, or nil. Start takes
	// ownership of it.
	Table *os.File
}

// Backend makes pipelines. Package tracing/otlp registers one when imported.
type Backend interface {
	// Start makes the pipeline of this process. up is nil in the master. ctx
	// bounds the call only. A nil Pipeline with a nil error means: off.
	Start(ctx context.Context, p ProcessResource, up *Uplink) (Pipeline, error)
}

// Pipeline exports, or relays, the spans and counters of one process. Its methods
// may be called by any goroutine.
type Pipeline interface {
	// TracerProvider is where spans are started. It is never nil.
	TracerProvider() trace.TracerProvider

	// LifeProvider is where the master starts the spans of its processes' lives. They
	// are few and explain the others, so all of them are sampled, unless the sampler
	// samples nothing. It is never nil.
	LifeProvider() trace.TracerProvider

	// Meter counts in this process; nil, which is off, when metrics are.
	Meter() *Meter

	// Adopt is called in the master before a child starts. It never fails.
	Adopt(p ProcessResource) ChildTelemetry

	// Shutdown ends the pipeline: it sends what is queued until ctx ends, drops and counts the
	// rest, and waits for its goroutines. Further calls return the result of the first. Call it in
	// the master after the children have ended, so that their last spans are sent too.
	Shutdown(ctx context.Context) error

	// Stats returns the counters so far.
	Stats() PipelineStats
}

// MetricsPage is implemented by a Pipeline whose metrics can be scraped.
type MetricsPage interface {
	// ServeMetrics answers with the metrics of the whole tree, in Prometheus' text format, in
	// the master. It answers 503 and says how to turn metrics on while there are none.
	ServeMetrics(w http.ResponseWriter, r *http.Request)
}

// ChildTelemetry is the master's side of one child's telemetry. Its methods may be
// called by any goroutine.
type ChildTelemetry interface {
	// Table returns the file in which the child records its open spans, for
	// Uplink.Table; owned by the caller. It is nil if there is none.
	Table() *os.File

	// Receive takes ownership of a payload. It never blocks: when the queue is full the
	// payload is dropped and counted, which is no error. Its errors wrap ErrPayload.
	Receive(kind PayloadKind, b []byte) error

	// Ended is called once the child has ended and its last payload was received. Spans
	// that it had ended and not sent are exported; spans that it had open end with an
	// error. It returns the outermost of the open spans, newest first, at most
	// [MaxServed]. Call it once, also for a child that did not come up.
	Ended(e End) []OpenSpan
}

// An OpenSpan is a span that a child had open when it ended. The child has named it.
type OpenSpan struct {
	trace.SpanContext
	Name  string
	Start time.Time
}

// MaxServed is the limit of spans that ChildTelemetry.Ended returns.
const MaxServed = 8

// End is how a child ended.
type End struct {
	At     time.Time
	PID    int    // of an OS process
	Type   string // kind of the exit reason, of low cardinality: the error.type of what was open
	Reason string // the exit reason, one line

	// Process describes the child as it was at its end: a spare has got a slot meanwhile. Without a
	// name it is as it was at Adopt.
	Process ProcessResource
}

// PipelineStats counts spans by what became of them. All counters only grow.
type PipelineStats struct {
	Spans           uint64 // sampled spans that ended in this process
	SpansDropped    uint64 // of those: dropped, since the queue was full or the relay refused them
	Payloads        uint64 // master: batches queued to be exported, its own and its children's
	PayloadsDropped uint64 // of those: dropped, since the queue was full, the collector did not take them, or time ran out
	TableFull       uint64 // child: sampled spans that found no room in the table of open spans
	MetricsDropped  uint64 // master: requests of metrics that the collector did not take; the next one has all again
	Recovered       uint64 // master: spans of children that had ended, taken from their tables
}

// Own returns a Backend for a program that sets up OpenTelemetry itself: in each process spans go
// to tp, and nothing is relayed. Register it before the tree is started. The caller shuts tp down.
func Own(tp trace.TracerProvider) Backend { return ownBackend{tp} }

var registered struct {
	sync.Mutex
	backend Backend
}

// Register makes b the backend of this process. The last call wins; nil means none. Call it
// from an init function, or before the tree is started.
func Register(b Backend) {
	registered.Lock()
	defer registered.Unlock()
	registered.backend = b
}

// Start makes this process's pipeline from the registered backend. It always returns a
// Pipeline, which the caller shuts down. If no backend is registered, the settings are off,
// or an error is returned, the Pipeline does nothing. So the caller may report the error
// and go on: a bad setting of tracing need not stop a service.
//
// up is nil in the master. ctx bounds the call only.
func Start(ctx context.Context, p ProcessResource, up *Uplink) (Pipeline, error) {
	registered.Lock()
	b := registered.backend
	registered.Unlock()
	if b == nil {
		up.close()
		return off{}, nil
	}
	pl, err := b.Start(ctx, p, up)
	if err != nil {
		return off{}, fmt.Errorf("tracing: start: %w", err)
	}
	if pl == nil {
		return off{}, nil
	}
	return pl, nil
}

// close closes what a pipeline would own.
func (u *Uplink) close() {
	if u != nil && u.Table != nil {
		_ = u.Table.Close()
	}
}

// off is the pipeline that does nothing.
type off struct{}

func (off) TracerProvider() trace.TracerProvider { return noop.NewTracerProvider() }
func (off) LifeProvider() trace.TracerProvider   { return noop.NewTracerProvider() }
func (off) Meter() *Meter                        { return nil }
func (off) Adopt(ProcessResource) ChildTelemetry { return offChild{} }
func (off) Shutdown(context.Context) error       { return nil }
func (off) Stats() PipelineStats                 { return PipelineStats{} }

type offChild struct{}

func (offChild) Table() *os.File { return nil }
func (offChild) Receive(PayloadKind, []byte) error {
	return fmt.Errorf("%w: nothing is exported", ErrPayload)
}
func (offChild) Ended(End) []OpenSpan { return nil }

type ownBackend struct{ provider trace.TracerProvider }

func (b ownBackend) Start(_ context.Context, _ ProcessResource, up *Uplink) (Pipeline, error) {
	up.close()
	if b.provider == nil {
		return nil, nil // off
	}
	return ownPipeline{provider: b.provider}, nil
}

// ownPipeline is off but for its provider.
type ownPipeline struct {
	off
	provider trace.TracerProvider
}

func (p ownPipeline) TracerProvider() trace.TracerProvider { return p.provider }
func (p ownPipeline) LifeProvider() trace.TracerProvider   { return p.provider }
