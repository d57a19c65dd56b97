package tracing_test

import (
	"context"
	"errors"
	"testing"

	"github.com/coppice-go/coppice/tracing"
)

type backendFunc func() (tracing.Pipeline, error)

func (f backendFunc) Start(context.Context, tracing.Process, func([]byte) error) (tracing.Pipeline, error) {
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
			p, err := tracing.Start(t.Context(), tracing.Process{Role: "master"}, nil)
			if !errors.Is(err, row.err) {
				t.Fatalf("error %v, want %v", err, row.err)
			}
			if tracing.New(p.TracerProvider()) != nil {
				t.Error("the pipeline is not off")
			}
			if err := p.Export(t.Context(), []byte{10, 0}); !errors.Is(err, tracing.ErrNotExporting) {
				t.Errorf("Export: %v, want ErrNotExporting", err)
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
	p, err := tracing.Start(t.Context(), tracing.Process{Role: "worker"}, func([]byte) error { return errors.New("not to be called") })
	if err != nil {
		t.Fatal(err)
	}
	tracing.New(p.TracerProvider()).Accept(tracing.Accepted{}).End()
	if n := len(spans.Ended()); n != 1 {
		t.Errorf("%d spans at the given provider, want 1", n)
	}
}
