package tracing_test

import (
	"context"
	"errors"
	"testing"

	"github.com/coppice-go/coppice/tracing"
)

type backendFunc func() (tracing.Pipeline, error)

func (f backendFunc) Start(context.Context, tracing.ProcessResource, *tracing.Uplink) (tracing.Pipeline, error) {
	return f()
}

func TestStartAlwaysReturnsAPipeline(t *testing.T) {
	t.Cleanup(func() { tracing.Register(nil) })
	boom := errors.New("boom")
	for _, row := range []struct {
		name string
		b    tracing.Backend
		err  error
	}{
		{"nothing registered", nil, nil},
		{"settings say off", backendFunc(func() (tracing.Pipeline, error) { return nil, nil }), nil},
		{"bad settings", backendFunc(func() (tracing.Pipeline, error) { return nil, boom }), boom},
		{"own provider, nil", tracing.Own(nil), nil},
	} {
		t.Run(row.name, func(t *testing.T) {
			tracing.Register(row.b)
			p, err := tracing.Start(t.Context(), tracing.ProcessResource{Role: "master"}, nil)
			if !errors.Is(err, row.err) {
				t.Fatalf("error %v, want %v", err, row.err)
			}
			if tracing.New(p.TracerProvider()) != nil {
				t.Error("the pipeline is not off")
			}
			c := p.Adopt(tracing.ProcessResource{Role: "worker"})
			if err := c.Receive(tracing.Spans, []byte{10, 0}); !errors.Is(err, tracing.ErrPayload) {
				t.Errorf("Receive: %v, want ErrPayload", err)
			}
			if c.Table() != nil || c.Ended(tracing.End{}) != nil || p.Meter() != nil || tracing.New(p.LifeProvider()) != nil {
				t.Error("the pipeline is not quite off")
			}
			if err := p.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown: %v", err)
			}
		})
	}
}

func TestOwnProvider(t *testing.T) {
	t.Cleanup(func() { tracing.Register(nil) })
	tp, spans := recorder(t)
	tracing.Register(tracing.Own(tp))
	p, err := tracing.Start(t.Context(), tracing.ProcessResource{Role: "worker"}, &tracing.Uplink{
		Send: func(tracing.PayloadKind, []byte) error { return errors.New("not to be called") },
	})
	if err != nil {
		t.Fatal(err)
	}
	tracing.New(p.TracerProvider()).Accept(tracing.AcceptSpan{}).End()
	if n := len(spans.Ended()); n != 1 {
		t.Errorf("%d spans at the given provider, want 1", n)
	}
}
