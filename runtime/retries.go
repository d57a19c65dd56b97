package coppice

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// firstRetry is the first pause between two tries.
const firstRetry = 20 * time.Millisecond

// retry calls try, with growing pauses, until it returns another error, or none, or ctx ends, and
// returns its last error. The log has one line when the wait begins and one line when it is over,
// however many starts wait.
func (s *retries) retry(ctx context.Context, name string, try func() error) error {
	err := try()
	if !s.wait(err) {
		return err
	}
	s.begin(name, err)
	defer s.end()
	for pause := firstRetry; s.wait(err); pause = min(2*pause, s.max) {
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-ctx.Done():
			return err
		}
		s.mu.Lock()
		s.attempts++
		s.mu.Unlock()
		err = try()
	}
	return err
}

// retries are starts that failed for a reason for which they are tried again, before a supervisor
// hears of it.
type retries struct {
	log         *slog.Logger
	wait        func(error) bool // reports whether an error is such a reason
	max         time.Duration    // the longest pause
	began, over string           // for the log

	mu       sync.Mutex
	waiting  int
	starts   int
	attempts int
	since    time.Time
}

func (s *retries) begin(name string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting++
	s.starts++
	s.attempts++
	if s.waiting == 1 {
		s.since = time.Now()
		s.log.Error(s.began, "name", name, "err", err)
	}
}

func (s *retries) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting--; s.waiting == 0 {
		s.log.Warn(s.over, "starts", s.starts, "attempts", s.attempts, "took", time.Since(s.since).Round(time.Millisecond))
		s.starts, s.attempts = 0, 0
	}
}
