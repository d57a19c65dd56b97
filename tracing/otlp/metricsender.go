package otlp

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
)

// metricsInterval is how often a child sends its counts to the master. A kill loses those of
// the last interval.
const metricsInterval = time.Second

// metricSender sends what a child counts, from its goroutine.
type metricSender struct {
	collector *collector
	send      func([]byte) error

	once     sync.Once
	stopping chan struct{}
	done     chan struct{}
}

// newMetricSender starts the goroutine, which ends by stop.
func newMetricSender(c *collector, send func([]byte) error) *metricSender {
	s := &metricSender{collector: c, send: send, stopping: make(chan struct{}), done: make(chan struct{})}
	go s.run() // ends after stop; wait waits for it
	return s
}

func (s *metricSender) run() {
	defer close(s.done)
	every := time.NewTicker(metricsInterval)
	defer every.Stop()
	failing := false
	for last := false; !last; {
		select {
		case <-every.C:
		case <-s.stopping:
			last = true
		}
		err := s.sendRound(last)
		if err != nil && !failing {
			otel.Handle(err)
		}
		failing = err != nil
	}
}

// sendRound sends the whole of what has been counted: first by Coppice's instruments, so
// that a callback of the program that hangs does not delay them, then by the program's.
// The last round waits for such a callback.
func (s *metricSender) sendRound(last bool) error {
	round := time.Now().UnixNano()
	err := s.sendMetrics(s.collector.coppice(), round)
	ctx, cancel := context.WithTimeout(context.Background(), metricsInterval)
	defer cancel()
	s.collector.refresh(ctx)
	if last {
		s.collector.wait()
	}
	program, err2 := s.collector.latest()
	return errors.Join(err, err2, s.sendMetrics(program, round))
}

func (s *metricSender) sendMetrics(metrics []metric, round int64) error {
	payloads, err := writeMetrics(metrics, round)
	for _, b := range payloads {
		err = errors.Join(err, s.send(b))
	}
	return err
}

// stop has the sender send a last time, and does not wait.
func (s *metricSender) stop() { s.once.Do(func() { close(s.stopping) }) }

// wait waits until the sender has ended, or ctx ends.
func (s *metricSender) wait(ctx context.Context) error {
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
