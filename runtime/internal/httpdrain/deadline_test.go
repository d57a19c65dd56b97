package httpdrain

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// timedGate shows what is in flight, and what its deadline became.
type timedGate struct {
	ids      atomic.Int64
	timed    chan *Timed // of the newest request
	extended chan time.Duration
}

func (g *timedGate) Begin(_ *http.Request, t *Timed) (int, string) {
	id := g.ids.Add(1)
	t.Begun(int(id), id)
	select {
	case g.timed <- t:
	default:
	}
	return int(id), ""
}
func (g *timedGate) End(int) {}
func (g *timedGate) Extend(n int, _ int64, d time.Duration) bool {
	g.extended <- d
	return int64(n) == g.ids.Load()
}

// timedServer serves h under a gate.
func timedServer(t *testing.T, http2 bool, h http.HandlerFunc) (*httptest.Server, *timedGate, *Drain) {
	g := &timedGate{timed: make(chan *Timed, 1), extended: make(chan time.Duration, 1)}
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = http2
	base, stop := context.WithCancel(context.Background()) // as the worker's
	s.Config.BaseContext = func(net.Listener) context.Context { return base }
	d := New(s.Config, nil, func(ctx context.Context, _ net.Conn) context.Context { return ctx }, func(int, bool) {}, func(int) {}, g)
	d.Time()
	if http2 {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(func() { stop(); s.Close() })
	return s, g, d
}

// TestTimed: a request whose context is ended knows why; the next ones of its connection are
// served, each with a context of its own.
func TestTimed(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		t.Run(map[bool]string{false: "HTTP/1", true: "HTTP/2"}[http2], func(t *testing.T) {
			begun, causes := make(chan struct{}), make(chan error, 1)
			var g *timedGate
			s, gate, d := timedServer(t, http2, func(rw http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/waits":
					rw.WriteHeader(http.StatusOK) // too late for Connection: close
					_ = http.NewResponseController(rw).Flush()
					close(begun)
					<-r.Context().Done()
					causes <- context.Cause(r.Context())
				case "/extends":
					if !Extend(r.Context(), time.Minute) || <-g.extended != time.Minute {
						t.Error("it is not extended")
					}
				default:
					if r.Context().Err() != nil {
						t.Error(context.Cause(r.Context()))
					}
				}
			})
			g = gate
			var conns atomic.Int64
			s.Client().Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conns.Add(1)
				return new(net.Dialer).DialContext(ctx, network, addr)
			}
			get := func(path string) *http.Response {
				resp, err := s.Client().Get(s.URL + path)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				return resp
			}
			get("/")
			first, old := <-g.timed, g.ids.Load()
			get("/extends")
			<-g.timed
			if first.Expire(old) {
				t.Error("a request that has ended is expired")
			}
			go func() { // ends with the handler's wait
				<-begun
				if timed := <-g.timed; timed.Expire(g.ids.Load()+1) || !timed.Expire(g.ids.Load()) || timed.Expire(g.ids.Load()) || timed.Goroutine() == 0 {
					t.Error("it is expired wrongly")
				}
			}()
			get("/waits")
			if cause := <-causes; !errors.Is(cause, ErrTimeout) || !errors.Is(cause, context.DeadlineExceeded) {
				t.Error(cause)
			}
			if resp := get("/"); resp.Close == http2 {
				t.Errorf("the next answer: close is %v", resp.Close)
			}
			get("/extends")
			if n := conns.Load(); n != map[bool]int64{false: 2, true: 1}[http2] {
				t.Errorf("%d connections", n)
			}
			s.CloseClientConnections()
			for d.AwaitConns(context.Background()); ; { // the hook comes before
				d.mu.Lock()
				n := len(d.timed)
				d.mu.Unlock()
				if n == 0 {
					break
				}
			}
		})
	}
}

// TestTimedClientLeaves: a request after one that was expired, on its connection, still learns that
// its client has gone.
func TestTimedClientLeaves(t *testing.T) {
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	s, g, _ := timedServer(t, false, func(_ http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		<-r.Context().Done()
		ended <- context.Cause(r.Context())
	})
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ask := func() {
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-begun
	}
	ask()
	(<-g.timed).Expire(g.ids.Load())
	if err := <-ended; !errors.Is(err, ErrTimeout) {
		t.Error(err)
	}
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	ask()
	c.Close()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestTimedHijack: who takes over a connection ends the deadlines of its request.
func TestTimedHijack(t *testing.T) {
	s, g, d := timedServer(t, false, func(rw http.ResponseWriter, r *http.Request) {
		c, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		if r.Context().Err() != nil {
			t.Error("its context has ended")
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		_ = c.Close()
	})
	resp, err := s.Client().Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if d := <-g.extended; d >= 0 {
		t.Errorf("it has %v", d)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.timed) != 0 {
		t.Error("its connection is kept")
	}
}

// TestTimedCost: a request of HTTP/1 with a deadline has no allocation more than one without.
func TestTimedCost(t *testing.T) {
	allocations := func(timed bool) float64 {
		s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		g := &timedGate{}
		d := New(s, nil, func(ctx context.Context, _ net.Conn) context.Context { return ctx }, func(int, bool) {}, func(int) {}, g)
		c, _ := net.Pipe()
		if timed {
			d.Time()
		} else {
			d.gate = openGate{}
		}
		rw, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
		r = r.WithContext(s.ConnContext(context.Background(), c))
		return testing.AllocsPerRun(100, func() { d.ServeHTTP(rw, r) })
	}
	if with, without := allocations(true), allocations(false); with != without {
		t.Errorf("%v allocations, %v without deadlines", with, without)
	}
}
