package logqueue_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/logqueue"
	"github.com/coppice-go/coppice/supervisor"
)

// stuck is a writer whose writes block until the test lets them go on.
type stuck struct {
	let chan struct{}
	mu  sync.Mutex
	b   bytes.Buffer
}

func (s *stuck) Write(b []byte) (int, error) {
	<-s.let
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func text(w *stuck) *logqueue.Handler {
	return logqueue.New(slog.NewTextHandler(w, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// TestStuck: a handler that takes nothing holds up no caller, and the queue is bounded; when it
// goes on, one record has the number of lost records.
func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &stuck{let: make(chan struct{})}
		h := text(w)
		log := slog.New(h)
		began := time.Now()
		for i := range 100_000 {
			log.Info("record", "n", i)
		}
		if time.Since(began) != 0 {
			t.Error("it was waited for")
		}
		if h.Flush(time.Second) {
			t.Error("all was written")
		}
		close(w.let)
		synctest.Wait()
		log.Info("again")
		if !h.Flush(time.Second) {
			t.Error("not all was written")
		}
		lines := strings.Split(strings.TrimSpace(w.b.String()), "\n")
		n := len(lines)
		if n < 1000 || n > 50_000 || lines[n-1] != "level=INFO msg=again" ||
			!strings.HasPrefix(lines[n-2], `level=WARN msg="records of the log were lost: they were not taken in time" records=`) {
			t.Errorf("%d lines, the last %q", n, lines[max(0, n-2):])
		}
	})
}

// valuer changes after it was logged.
type valuer struct{ text *string }

func (v valuer) LogValue() slog.Value { return slog.StringValue(*v.text) }

// TestRecord: a record has the values of the time when it was logged, in the groups and with the
// attributes of its logger, and no text of it is longer than the bound.
func TestRecord(t *testing.T) {
	w := &stuck{let: make(chan struct{})}
	h := text(w)
	was := "before"
	list := []string{"a"}
	ctx, cancel := context.WithCancel(t.Context())
	log := slog.New(h).With("child", "web/0").WithGroup("g")
	log.InfoContext(ctx, "m", "v", valuer{&was}, "list", list, "err", errors.New("no"), "n", 1,
		slog.Group("in", "long", strings.Repeat("A", 1<<20)))
	was, list[0] = "after", "b"
	cancel()
	close(w.let)
	if !h.Flush(time.Minute) {
		t.Fatal("not written")
	}
	got := w.b.String()
	if want := `level=INFO msg=m child=web/0 g.v=before g.list=[a] g.err=no g.n=1 g.in.long="AAA`; !strings.HasPrefix(got, want) {
		t.Errorf("%.200s", got)
	}
	if len(got) > supervisor.MaxText+200 || !strings.Contains(got, "(cut, 1048576 bytes)") {
		t.Errorf("%d bytes", len(got))
	}
}

// panics is a handler that panics.
type panics struct{ slog.Handler }

func (panics) Handle(context.Context, slog.Record) error { panic("no log") }

// TestPanic: a handler that panics costs its record, not the program.
func TestPanic(t *testing.T) {
	h := logqueue.New(panics{slog.DiscardHandler})
	if err := h.Handle(t.Context(), slog.NewRecord(time.Now(), slog.LevelInfo, "m", 0)); err != nil || !h.Flush(time.Minute) {
		t.Error(err)
	}
}
