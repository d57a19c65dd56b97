package coppice

import (
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/runtime/internal/pool"
	"github.com/coppice-go/coppice/tracing"
)

// maxOperations is how many of the latest operations are remembered: what happens
// in one may be told when it is over.
const maxOperations = 16

// operation is something that is done to a branch of the tree as a whole: a
// reload, a change of size. What begins to start or stop under its path meanwhile
// is part of its trace. A nil *operation does nothing.
type operation struct {
	l     *lifecycleSpans
	name  string // of the span
	path  string
	span  tracing.Span
	began time.Time
	ended time.Time // zero while it is under way; guarded by lifecycleSpans.mu
}

// beginOperation begins an operation on the branch at path; "" is the whole tree. The
// caller ends it.
func (l *lifecycleSpans) beginOperation(name, path string, attrs ...attribute.KeyValue) *operation {
	if l == nil {
		return nil
	}
	now := time.Now()
	o := &operation{l: l, name: name, path: path, began: now, span: l.begin(name, path, now, tracing.Span{}, nil, attrs...)}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.operations) == maxOperations {
		l.operations = append(l.operations[:0], l.operations[1:]...)
	}
	l.operations = append(l.operations, o)
	return o
}

// end ends the operation, as failed unless err is nil.
func (o *operation) end(err error) {
	if o == nil {
		return
	}
	o.l.mu.Lock()
	o.ended = time.Now()
	o.l.mu.Unlock()
	o.span.EndError(err)
}

// operation returns the span of the newest operation that what began at path, then,
// is part of.
func (l *lifecycleSpans) operation(path string, then time.Time) tracing.Span {
	return l.operationFor("", path, then)
}

// operationFor is operation for what a pool does for a reason of its own. What is
// done for an operation may begin when that has just ended: the last drain of a
// reload does.
func (l *lifecycleSpans) operationFor(why, path string, then time.Time) tracing.Span {
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
