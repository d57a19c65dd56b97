package coppice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
)

// checkHealth tells what is wrong with a worker's work, as far as its pool says
// how to find out. A panic of the user's code is one answer.
func (c *child) checkHealth(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if path := c.pool.Liveness.Path; path != "" {
		if err := c.ask(ctx, path); err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
	}
	if c.pool.Liveness.Check != nil {
		return c.pool.Liveness.Check(ctx, &Worker{c})
	}
	return nil
}

// ask has the handler of every http.Server that the worker serves answer a request
// for path.
func (c *child) ask(ctx context.Context, path string) error {
	c.serverMu.Lock()
	var handlers []http.Handler
	for _, s := range c.servers {
		handlers = append(handlers, s.Handler())
	}
	c.serverMu.Unlock()
	if len(handlers) == 0 {
		return errors.New("the worker serves no http.Server by Worker.Serve")
	}
	for _, h := range handlers {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost"+path, nil)
		if err != nil {
			return err
		}
		r.RequestURI = path
		answer := statusRecorder{header: http.Header{}}
		h.ServeHTTP(&answer, r)
		if answer.status >= http.StatusBadRequest {
			return fmt.Errorf("status %d", answer.status)
		}
	}
	return nil
}

// statusRecorder is an http.ResponseWriter that keeps the status. (That of httptest
// would give the program a flag.)
type statusRecorder struct {
	header http.Header
	status int
}

func (s *statusRecorder) Header() http.Header { return s.header }

func (s *statusRecorder) WriteHeader(status int) {
	if s.status < http.StatusOK { // 1xx may come before
		s.status = status
	}
}

func (s *statusRecorder) Write(b []byte) (int, error) {
	s.WriteHeader(http.StatusOK)
	return len(b), nil
}
