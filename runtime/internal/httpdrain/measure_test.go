package httpdrain

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// openGate refuses nothing.
type openGate struct{}

func (openGate) Begin(*http.Request, *Timed) (n int, refused string) { return 0, "" }
func (openGate) End(int)                                             {}
func (openGate) Extend(int, int64, time.Duration) bool               { return false }

// TestMeasure: which requests have failed is known over HTTP/1 and HTTP/2, without an allocation.
func TestMeasure(t *testing.T) {
	for _, proto := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(proto, func(t *testing.T) {
			var allocated float64
			handler := http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/500":
					rw.WriteHeader(http.StatusInternalServerError)
				case "/404":
					rw.WriteHeader(http.StatusNotFound)
				case "/503":
					http.Error(rw, "busy", http.StatusServiceUnavailable)
				case "/panic":
					panic(http.ErrAbortHandler)
				case "/text":
					_, _ = io.WriteString(rw, "hello") // the client may have gone
				case "/allocations":
					statusOf(rw)
					allocated = testing.AllocsPerRun(100, func() { statusOf(rw) })
				}
				if r.Proto != proto {
					t.Errorf("it is %s", r.Proto)
				}
			})
			s := httptest.NewUnstartedServer(handler)
			s.EnableHTTP2 = proto == "HTTP/2.0"
			type result struct {
				took   time.Duration
				failed bool
			}
			results := make(chan result, 16)
			var counted atomic.Int64
			d := New(s.Config, nil, func(ctx context.Context, _ net.Conn) context.Context { return ctx }, func(int, bool) {}, func(n int) { counted.Add(int64(n)) }, openGate{})
			d.Measure(func(took time.Duration, failed bool) { results <- result{took, failed} })
			if s.EnableHTTP2 {
				s.StartTLS()
			} else {
				s.Start()
			}
			defer s.Close()
			paths := map[string]bool{"/": false, "/text": false, "/404": false, "/500": true, "/503": true, "/panic": true, "/allocations": false}
			for path, failed := range paths {
				if resp, err := s.Client().Get(s.URL + path); err == nil {
					_ = resp.Body.Close()
				} else if path != "/panic" {
					t.Fatal(err)
				}
				if r := <-results; r.failed != failed || r.took <= 0 {
					t.Errorf("%s: %+v", path, r)
				}
			}
			if allocated != 0 {
				t.Errorf("%v allocations", allocated)
			}
			if n := counted.Load(); n < int64(len(paths)-1) { // the last one may not be counted yet
				t.Errorf("%d requests counted", n)
			}
		})
	}
	if n := statusOf(httptest.NewRecorder()); n != 0 {
		t.Errorf("status %d of a writer that has none", n)
	}
}
