package otlp

import (
	"sync"
	"time"

	"go.opentelemetry.io/otel"

	"github.com/coppice-go/coppice/tracing"
)

// metricsEvery is how often a child tells the master what it has counted. The
// counts of the last such while are what a kill can lose.
const metricsEvery = time.Second

// ticker sends what a child counts, from a goroutine of its own.
type ticker struct {
	once sync.Once
	stop chan struct{}
	done chan struct{}
}

func newTicker(m *tracing.Meter, send func([]byte) error) *ticker {
	t := &ticker{stop: make(chan struct{}), done: make(chan struct{})}
	go t.run(m, send) // ends by close, which waits for it
	return t
}

func (t *ticker) run(m *tracing.Meter, send func([]byte) error) {
	defer close(t.done)
	every := time.NewTicker(metricsEvery)
	defer every.Stop()
	failing := false
	for last := false; !last; {
		select {
		case <-every.C:
		case <-t.stop:
			last = true
		}
		b, err := writePoints(m.Collect())
		if err == nil {
			err = send(b)
		}
		if err != nil && !failing {
			otel.Handle(err)
		}
		failing = err != nil
	}
}

// close sends a last time, and waits for it.
func (t *ticker) close() {
	t.once.Do(func() { close(t.stop) })
	<-t.done
}
