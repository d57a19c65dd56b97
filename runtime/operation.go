package coppice

import (
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/coppice-go/coppice/tracing"
)

// operation is something that is done to a branch of the tree as a whole: a
// reload, a change of size. What starts, stops and restarts under its path
// meanwhile is part of its trace. A nil *operation does nothing.
type operation struct {
	l    *life
	path string
	span tracing.Span
}

// operate begins an operation on the branch at path; "" is the whole tree. The
// caller ends it.
func (l *life) operate(name, path string, attrs ...attribute.KeyValue) *operation {
	if l == nil {
		return nil
	}
	o := &operation{l, path, l.begin(name, path, time.Now(), tracing.Span{}, nil, attrs...)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.operations = append(l.operations, o)
	return o
}

// event adds what happens and does not last.
func (o *operation) event(name string, attrs ...attribute.KeyValue) {
	if o != nil {
		o.span.Event(name, time.Now(), attrs...)
	}
}

// step begins a part of the operation that is no supervisor's event. The caller
// ends it.
func (o *operation) step(name, path string, attrs ...attribute.KeyValue) tracing.Span {
	if o == nil {
		return tracing.Span{}
	}
	return o.l.begin(name, path, time.Now(), o.span, nil, attrs...)
}

// end ends the operation, as failed unless err is nil.
func (o *operation) end(err error) {
	if o == nil {
		return
	}
	o.l.mu.Lock()
	for i, other := range o.l.operations {
		if other == o {
			o.l.operations = append(o.l.operations[:i], o.l.operations[i+1:]...)
			break
		}
	}
	o.l.mu.Unlock()
	o.span.EndError(err)
}
