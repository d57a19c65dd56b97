package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// ErrorBody returns the body of an answer that is an error.
func ErrorBody(status int, err error) []byte {
	b, _ := json.Marshal(struct { // two plain fields
		Status int    `json:"status"`
		Error  string `json:"error"`
	}{status, err.Error()})
	return append(b, '\n')
}

// Error answers with an error as JSON.
func Error(w http.ResponseWriter, status int, err error) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(ErrorBody(status, err)) // on an error the client is gone
}

// Answer answers with v as JSON.
func Answer(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		Error(w, http.StatusInternalServerError, fmt.Errorf("control: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n'))
}

// keepAlive is how often a quiet stream has a comment, by which both ends learn that the other has
// gone.
const keepAlive = 15 * time.Second

// A Stream sends server-sent events (HTML, section 9.2).
type Stream struct {
	w       http.ResponseWriter
	control *http.ResponseController
}

// NewStream begins to answer with a stream.
func NewStream(w http.ResponseWriter) *Stream {
	s := &Stream{w, http.NewResponseController(w)}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	_ = s.control.SetReadDeadline(time.Time{}) // the request is read; the client may be silent
	w.WriteHeader(http.StatusOK)
	_ = s.control.Flush()
	return s
}

// Send sends an event with a name, and v as JSON. id is the cursor of the event; 0 = it has none.
func (s *Stream) Send(name string, id uint64, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	head := "event: " + name + "\n"
	if id != 0 {
		head += fmt.Sprintf("id: %d\n", id)
	}
	if _, err := fmt.Fprintf(s.w, "%sdata: %s\n\n", head, b); err != nil {
		return err
	}
	return s.control.Flush()
}

// Follow sends what next returns until next fails, the client has gone or ctx ends. next waits for
// an entry until its context ends. What there is when ctx ends may be left.
func (s *Stream) Follow(ctx context.Context, next func(context.Context) (name string, id uint64, v any, err error)) {
	for ctx.Err() == nil {
		quiet, cancel := context.WithTimeout(ctx, keepAlive)
		name, id, v, err := next(quiet)
		over := quiet.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			err = s.Send(name, id, v)
		case over:
			if _, err = fmt.Fprint(s.w, ": nothing new\n\n"); err == nil {
				err = s.control.Flush()
			}
		}
		if err != nil {
			return
		}
	}
}
