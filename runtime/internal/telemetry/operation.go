package telemetry

import (
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/tracing"
)

// maxOperations bounds the operations that are remembered, because an event of an operation may
// come after its end.
const maxOperations = 16

// Operation is a reload, a change of size or the last step of an upgrade, which concerns a branch
// of the tree as a whole. Starts and stops that begin under its path while it is under way are part
// of its trace. A nil *Operation does nothing.
type Operation struct {
	l     *Lifecycle
	name  string // of the span
	path  string
	span  tracing.Span
	began time.Time
	ended time.Time // zero while it is under way; guarded by Lifecycle.mu
}

// BeginOperation begins an operation on the branch at path; "" is the whole tree. It is a part of
// under, which may be nil. The caller ends it.
func (l *Lifecycle) BeginOperation(name, path string, under *Operation, attrs ...attribute.KeyValue) *Operation {
	if l == nil {
		return nil
	}
	now := time.Now()
	var parent tracing.Span
	if under != nil {
		parent = under.span
	}
	return l.add(&Operation{l: l, name: name, path: path, began: now, span: l.begin(name, path, now, parent, nil, attrs...)})
}

// add has the starts and stops to come be parts of o.
func (l *Lifecycle) add(o *Operation) *Operation {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.operations) == maxOperations {
		l.operations = append(l.operations[:0], l.operations[1:]...)
	}
	l.operations = append(l.operations, o)
	return o
}

// Set adds attributes to the span of the operation.
func (o *Operation) Set(attrs ...attribute.KeyValue) {
	if o != nil {
		o.span.Set(attrs...)
	}
}

// End ends the operation, as failed unless err is nil.
func (o *Operation) End(err error) {
	if o == nil {
		return
	}
	o.l.mu.Lock()
	o.ended = time.Now()
	o.l.mu.Unlock()
	o.span.EndError(err)
}

// operation returns the span of the newest operation that was under way at path at the time then.
func (l *Lifecycle) operation(path string, then time.Time) tracing.Span {
	return l.operationFor("", path, then)
}

// operationFor is operation for an event of a pool with the reason why. The event may begin when
// its operation has just ended, as the last drain of a reload does.
func (l *Lifecycle) operationFor(why, path string, then time.Time) tracing.Span {
	name := ""
	switch why {
	case pool.ForRoll.String(), pool.ForBack.String():
		name = tracing.SpanReload
	case pool.ForScale.String():
		name = tracing.SpanScale
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := len(l.operations) - 1; i >= 0; i-- {
		o := l.operations[i]
		if o.path != "" && path != o.path && !strings.HasPrefix(path, o.path+"/") {
			continue
		}
		if name != "" && name != o.name {
			continue
		}
		if !then.Before(o.began) && (name != "" || o.ended.IsZero() || !then.After(o.ended)) {
			return o.span
		}
	}
	return tracing.Span{}
}
