package tracing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// ErrPayload is what Child.Receive answers for what is of no use to the master:
// bytes that are not what their kind says, or anything where nothing is exported.
var ErrPayload = errors.New("tracing: unusable payload")

// ProcessResource says which process of the tree this is. It becomes the resource of
// its spans.
type ProcessResource struct {
	Role        string // master, listener, worker
	Name        string // registered name: master, listener/http, web/0
	ID          int    // never reused; the master's is 0
	Slot        int    // a worker's place in its pool; -1 when it has none
	Generation  int    // the reload that it belongs to
	Incarnation int    // counts the starts of what has this name
	Shared      bool   // a goroutine of the master, not a process of its own
}

// PayloadKind says what the bytes are that a child sends to its master.
type PayloadKind uint8

// The kinds of payload.
const (
	Spans   PayloadKind = iota // finished spans: OTLP bytes (TracesData)
	Metrics                    // what was counted since the last such payload: the backend's own bytes
)

// Uplink is what a child process has of its master.
type Uplink struct {
	// Send brings a payload to the master, where it is given to Child.Receive,
	// each kind in order. It takes ownership of the bytes. It may block; spans
	// that end meanwhile wait in a bounded queue and are dropped, counted, at its
	// end. What it answers with an error is dropped and counted.
	Send func(kind PayloadKind, b []byte) error

	// Table is what Child.Table returned in the master, or nil. Start takes
	// ownership of it.
	Table *os.File
}

// Backend makes pipelines. Package tracing/otlp registers one when imported.
type Backend interface {
	// Start makes the pipeline of this process. up is nil in the master. ctx
	// bounds the call only. A nil Pipeline with a nil error means: off.
	Start(ctx context.Context, p ProcessResource, up *Uplink) (Pipeline, error)
}

// Pipeline is what one process does with its spans and its counters. Its methods
// may be called by any goroutine.
type Pipeline interface {
	// TracerProvider is where spans are started. It is never nil.
	TracerProvider() trace.TracerProvider

	// LifeProvider is where the master starts the spans of its processes' lives.
	// They are few, and explain the others, so they are all sampled unless nothing
	// is. It is never nil.
	LifeProvider() trace.TracerProvider

	// Meter counts in this process; nil, which is off, when metrics are.
	Meter() *Meter

	// Adopt says in the master that a child is about to start. It never fails.
	Adopt(p ProcessResource) ChildTelemetry

	// Shutdown ends the pipeline: sends what is queued until ctx ends, drops
	// and counts the rest, and waits for its goroutines. Further calls return
	// what the first returned. Call it in the master after the children are
	// gone, so that their last spans are sent too.
	Shutdown(ctx context.Context) error

	// Stats returns the counters so far.
	Stats() PipelineStats
}

// ChildTelemetry is what the master's pipeline knows of one child. Its methods may be
// called by any goroutine.
type ChildTelemetry interface {
	// Table returns the file in which the child notes its open spans, for
	// Uplink.Table: owned by the caller. nil where there is none.
	Table() *os.File

	// Receive takes ownership of a payload. It never blocks: when the queue is
	// full it is dropped and counted, which is no error. The only error is one
	// that wraps ErrPayload.
	Receive(kind PayloadKind, b []byte) error

	// Ended says that the child has ended and its last payload was received. What
	// it had finished and not sent is exported, and what it had open ends with an
	// error. It returns the outermost of the open spans, newest first, at most
	// [MaxServed]. Call it once, also for a child that did not come up.
	Ended(e End) []trace.SpanContext
}

// MaxServed bounds how many spans Child.Ended returns.
const MaxServed = 8

// End is how a child ended.
type End struct {
	At     time.Time
	PID    int    // of an OS process
	Type   string // kind of the exit reason, of low cardinality: the error.type of what was open
	Reason string // the exit reason, one line
}

// PipelineStats counts what became of spans. All only grow.
type PipelineStats struct {
	Spans           uint64 // sampled spans that ended in this process
	SpansDropped    uint64 // of those: dropped, since the queue was full or the relay refused them
	Payloads        uint64 // master: batches queued to be exported, its own and its children's
	PayloadsDropped uint64 // of those: dropped, since the queue was full, the collector did not take them, or time ran out
	TableFull       uint64 // child: sampled spans that found no room in the table of open spans
	MetricsDropped  uint64 // master: requests of metrics that the collector did not take; the next one has all again
	Recovered       uint64 // master: spans of children that had ended, taken from their tables
}

// Own returns a Backend for a program that sets up OpenTelemetry itself: spans
// go to tp, in each process, and nothing is relayed. Register it before the
// tree is started. The caller shuts tp down.
func Own(tp trace.TracerProvider) Backend { return ownBackend{tp} }

var registered struct {
	sync.Mutex
	backend Backend
}

// Register makes b the backend of this process. The last one wins; nil means
// none. To be called from an init function, or before the tree is started.
func Register(b Backend) {
	registered.Lock()
	defer registered.Unlock()
	registered.backend = b
}

// Start makes this process's pipeline from the registered backend. It always
// returns a Pipeline, to be shut down by the caller; when nothing is registered,
// the settings say off, or an error is returned, it is one that does nothing. So
// the caller may report the error and go on: a bad setting of tracing need not
// stop a service.
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

// close lets go of what a pipeline would own.
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
func (offChild) Ended(End) []trace.SpanContext { return nil }

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
