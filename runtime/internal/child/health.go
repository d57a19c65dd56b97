package child

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
)

// checkHealth returns an error if the worker is unwell, by the health path and the check of its
// pool. A panic of the user's code is such an error.
func (s *Session) checkHealth(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	if path := s.identity.HealthPath; path != "" {
		if err := s.ask(ctx, path); err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
	}
	if s.program.Check != nil {
		return s.program.Check(ctx)
	}
	return nil
}

// ask calls the handler of every http.Server that the worker serves with a request for path. It
// returns an error if one answers with status 400 or more.
func (s *Session) ask(ctx context.Context, path string) error {
	s.serverMu.Lock()
	var handlers []http.Handler
	for _, d := range s.servers {
		handlers = append(handlers, d.Handler())
	}
	s.serverMu.Unlock()
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

// statusRecorder is an http.ResponseWriter that keeps the status. (Package httptest would add a
// flag to the program.)
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

// answerHeartbeat answers a heartbeat, at once or after the check. It does not block.
func (s *Session) answerHeartbeat(b childproto.HeartbeatFrame) {
	if s.program.Check == nil && s.identity.HealthPath == "" {
		s.sendHeartbeat(b)
		return
	}
	go func() { // ends with the check; the master sends no other heartbeat until then
		ctx, cancel := context.WithTimeout(s.ctx, s.identity.HealthTimeout)
		defer cancel()
		if err := s.checkHealth(ctx); err != nil {
			b.Unwell = supervisor.Cut(err.Error())
		}
		s.sendHeartbeat(b)
	}()
}

// sendHeartbeat sends the answer to a heartbeat. If there is no room for it, the answer is lost,
// and for the master it is missing.
func (s *Session) sendHeartbeat(b childproto.HeartbeatFrame) {
	b.Requests = uint64(s.spare.served.Load())
	if b.Ask {
		b.Figures = s.figures.Figures()
	}
	_ = s.conn.TrySend(childproto.NewFrame(childproto.FrameHeartbeat, b))
}
