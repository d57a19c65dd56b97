package tracing

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// ErrNotExporting is what Export answers where nothing is exported: in a child
// process, or when tracing is off.
var ErrNotExporting = errors.New("tracing: this process exports nothing")

// Process says which process of the tree this is. It becomes the resource of
// its spans.
type Process struct {
	Role        string // master, listener, worker
	Name        string // registered name: master, listener/http, web/0
	ID          int    // never reused; the master's is 0
	Slot        int    // a worker's place in its pool; -1 when it has none
	Generation  int    // the reload that it belongs to
	Incarnation int    // counts the starts of what has this name
}

// Backend makes pipelines. Package tracing/otlp registers one when imported.
type Backend interface {
	// Start makes the pipeline of this process. relay is nil in the master;
	// in a child it brings finished spans to the master, see [Start]. ctx
	// bounds the call only. A nil Pipeline with a nil error means: off.
	Start(ctx context.Context, p Process, relay func(otlp []byte) error) (Pipeline, error)
}

// Pipeline is what one process does with its spans. Its methods may be called
// by any goroutine.
type Pipeline interface {
	// TracerProvider is where spans are started. It is never nil.
	TracerProvider() trace.TracerProvider

	// Export takes ownership of spans that a child relayed, as OTLP bytes
	// (TracesData), and queues them without decoding. It never blocks. When the
	// queue is full they are dropped and counted, which is no error. Errors are
	// ErrNotExporting, and one that says that the bytes are not OTLP.
	Export(ctx context.Context, otlp []byte) error

	// Shutdown ends the pipeline: sends what is queued until ctx ends, drops
	// and counts the rest, and waits for its goroutines. Further calls return
	// what the first returned. Call it in the master after the children are
	// gone, so that their last spans are sent too.
	Shutdown(ctx context.Context) error

	// Stats returns the counters so far.
	Stats() Stats
}

// Stats counts what became of spans. All only grow.
type Stats struct {
	Spans           uint64 // sampled spans that ended in this process
	SpansDropped    uint64 // of those: dropped, since the queue was full or the relay refused them
	Payloads        uint64 // master: batches queued to be exported, its own and its children's
	PayloadsDropped uint64 // of those: dropped, since the queue was full, the collector did not take them, or time ran out
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
// In a child, relay brings OTLP bytes to the master, where they are given to
// Export. It takes ownership of the bytes. It is called by one goroutine of the
// pipeline and may block; spans that end meanwhile wait in a bounded queue and
// are dropped, counted, at its end. What it answers with an error is dropped and
// counted. In the master relay is nil. ctx bounds the call only.
func Start(ctx context.Context, p Process, relay func(otlp []byte) error) (Pipeline, error) {
	registered.Lock()
	b := registered.backend
	registered.Unlock()
	if b == nil {
		return off{}, nil
	}
	pl, err := b.Start(ctx, p, relay)
	if err != nil {
		return off{}, fmt.Errorf("tracing: start: %w", err)
	}
	if pl == nil {
		return off{}, nil
	}
	return pl, nil
}

// off is the pipeline that does nothing.
type off struct{}

func (off) TracerProvider() trace.TracerProvider { return noop.NewTracerProvider() }
func (off) Export(context.Context, []byte) error { return ErrNotExporting }
func (off) Shutdown(context.Context) error       { return nil }
func (off) Stats() Stats                         { return Stats{} }

type ownBackend struct{ provider trace.TracerProvider }

func (b ownBackend) Start(context.Context, Process, func([]byte) error) (Pipeline, error) {
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
