package main

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	coppice "github.com/coppice-go/coppice/runtime"
)

// shop is the life of a worker that serves one connection at a time, as a program
// with one licence, one GPU or one till does. What comes meanwhile waits, offered
// and not claimed.
func shop(addr string) coppice.WorkerFunc {
	return func(ctx context.Context, w *coppice.Worker) error {
		ln, err := w.ListenSpec(ctx, coppice.ListenerSpec{Name: "http", Network: "tcp", Address: addr})
		if err != nil {
			return err
		}
		// Counted here, added up over all workers, and shown by the master.
		pages, err := otel.Meter("shop").Int64Counter("shop.pages", metric.WithUnit("{page}"), metric.WithDescription("Pages shown."))
		if err != nil {
			return err
		}
		mux := http.NewServeMux()
		mux.HandleFunc("GET /{$}", page(pages))
		mux.HandleFunc("GET /charge", charge)
		srv := &http.Server{Handler: otelhttp.NewHandler(mux, "request", otelhttp.WithSpanNameFormatter(route))}
		srv.SetKeepAlivesEnabled(false)
		return w.Serve(ctx, oneAtATime(ln), srv)
	}
}

func route(_ string, r *http.Request) string { return r.Method + " " + r.URL.Path }

func page(shown metric.Int64Counter) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		ctx, span := otel.Tracer("shop").Start(r.Context(), "render")
		defer span.End()
		slog.InfoContext(ctx, "page")
		shown.Add(ctx, 1)
		identify(rw, r)
	}
}

// charge takes a card, and its time.
func charge(rw http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	_, span := otel.Tracer("shop").Start(ctx, "render")
	time.Sleep(3 * time.Millisecond)
	span.End()
	_, span = otel.Tracer("shop").Start(ctx, "charge card", trace.WithSpanKind(trace.SpanKindClient))
	defer span.End()
	slog.InfoContext(ctx, "charging a card")
	identify(rw, r)
	_ = http.NewResponseController(rw).Flush()
	ms, _ := strconv.Atoi(r.FormValue("ms"))
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
	case <-ctx.Done():
	}
}

// identify writes into the answer which worker it comes from.
func identify(rw http.ResponseWriter, r *http.Request) {
	rw.Header().Set("X-Pid", strconv.Itoa(os.Getpid()))
	rw.Header().Set("X-Trace", trace.SpanContextFromContext(r.Context()).TraceID().String())
	rw.WriteHeader(http.StatusOK)
}

// oneAtATime returns a listener that accepts a connection when the one before it
// has been closed.
func oneAtATime(ln net.Listener) net.Listener {
	l := &single{Listener: ln, free: make(chan struct{}, 1), closed: make(chan struct{})}
	l.free <- struct{}{}
	return l
}

type single struct {
	net.Listener
	free   chan struct{}
	once   sync.Once
	closed chan struct{}
}

func (l *single) Accept() (net.Conn, error) {
	select {
	case <-l.free:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		l.free <- struct{}{}
		return nil, err
	}
	return &only{Conn: c, done: sync.OnceFunc(func() { l.free <- struct{}{} })}, nil
}

func (l *single) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

type only struct {
	net.Conn
	done func()
}

func (c *only) Close() error {
	defer c.done()
	return c.Conn.Close()
}

// NetConn lets tracing find the connection's span.
func (c *only) NetConn() net.Conn { return c.Conn }
