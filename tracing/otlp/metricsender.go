package otlp

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
)

// metricsInterval is how often a child tells the master what it has counted. The
// counts of the last such while are what a kill can lose.
const metricsInterval = time.Second

// metricSender sends what a child counts, from a goroutine of its own.
type metricSender struct {
	collect func(context.Context) ([][]byte, error)
	send    func([]byte) error

	once     sync.Once
	stopping chan struct{}
	done     chan struct{}
}

// newMetricSender starts the goroutine, which ends by stop. What collect returns beside an
// error is sent all the same.
func newMetricSender(collect func(context.Context) ([][]byte, error), send func([]byte) error) *metricSender {
	t := &metricSender{collect: collect, send: send, stopping: make(chan struct{}), done: make(chan struct{})}
	go t.run() // ends after stop; wait waits for it
	return t
}

func (t *metricSender) run() {
	defer close(t.done)
	every := time.NewTicker(metricsInterval)
	defer every.Stop()
	failing := false
	for last := false; !last; {
		select {
		case <-every.C:
		case <-t.stopping:
			last = true
		}
		ctx, cancel := context.WithTimeout(context.Background(), metricsInterval)
		payloads, err := t.collect(ctx)
		cancel()
		for _, b := range payloads {
			err = errors.Join(err, t.send(b))
		}
		if err != nil && !failing {
			otel.Handle(err)
		}
		failing = err != nil
	}
}

// stop has it send a last time, and does not wait.
func (t *metricSender) stop() { t.once.Do(func() { close(t.stopping) }) }

// wait waits until it has, or ctx ends.
func (t *metricSender) wait(ctx context.Context) error {
	select {
	case <-t.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
