// Tracing is a shop whose worker is killed in the middle of a payment, and the
// traces that tell of it: what the dead worker was at, and how the connection that
// waited behind it was served by another.
//
//	go -C examples/tracing run . -jaeger -print    # builds Jaeger once, some ten minutes
//	go -C examples/tracing run . -print            # with a Jaeger that is there already
//	go -C examples/tracing run .                   # serves until Ctrl-C
//
// The README beside this file has what it prints.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/attribute"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
	"github.com/coppice-go/coppice/tracing/otlp"
)

func main() {
	var (
		addr     = flag.String("addr", "127.0.0.1:8000", "listen `address`; port 0 picks one")
		workers  = flag.Int("workers", 2, "worker processes")
		endpoint = flag.String("endpoint", "http://127.0.0.1:4318", "where OTLP goes, by HTTP")
		query    = flag.String("query", "http://127.0.0.1:16686", "where Jaeger answers")
		metrics  = flag.String("metrics", "", "serve metrics for Prometheus at this `address`")
		ratio    = flag.Float64("sample", 1, "part of the connections that is traced, 0 to 1")
		jaeger   = flag.Bool("jaeger", false, "run a Jaeger as a part of the tree, built first if it must be")
		svg      = flag.String("svg", "", "with -print: draw the traces in this `file`, too")
		print    = flag.Bool("print", false, "kill a worker in the middle of a request, print the traces, and end")
	)
	flag.Parse()

	slog.SetDefault(slog.New(tracing.LogHandler(slog.NewTextHandler(os.Stderr, nil))))
	err := otlp.Use(otlp.Config{
		Endpoint: *endpoint, ServiceName: "shop", SampleRatio: ratio,
		Metrics:    "prometheus", // Jaeger takes none
		Attributes: []attribute.KeyValue{attribute.String("deployment.environment.name", "demo")},
	})
	if err != nil {
		fail(err)
	}
	var children []coppice.ChildSpec
	if *jaeger {
		bin := jaegerBinary()
		if !coppice.IsChild() { // what stands here runs in every process
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			err := buildJaeger(ctx, bin, os.Stderr)
			stop()
			if err != nil {
				fail(err)
			}
		}
		children = append(children, coppice.Process{Name: "jaeger", Command: jaegerCommand(bin, defaultPorts), Shutdown: 5 * time.Second})
	}
	if *metrics != "" {
		children = append(children, coppice.Func{Name: "metrics", Run: func(ctx context.Context) error {
			return serveMetrics(ctx, *metrics)
		}})
	}
	children = append(children, coppice.Pool{
		Name: "web", Size: *workers, Worker: shop(*addr),
		Intensity: supervisor.Intensity{Max: 100, Period: 10 * time.Second},
	})
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	cfg := coppice.Config{
		Children: children,
		Hooks: coppice.Hooks{Started: func(rt *coppice.Runtime) {
			url := fmt.Sprintf("http://%s", rt.Listeners()[0].Addr)
			fmt.Printf("%s/  master pid %d\n", url, os.Getpid())
			if *print {
				go func() { // ends with the demonstration, which ends the tree
					defer stop()
					panels, err := demonstrate(ctx, url, jaegerAPI{*query}, os.Stdout)
					if err == nil && *svg != "" {
						err = paint(*svg, panels)
					}
					if err != nil {
						fail(err)
					}
				}()
			}
		}},
	}
	if !*print {
		coppice.Main(cfg)
	}
	if err := coppice.Run(ctx, cfg); err != nil {
		fail(err)
	}
}

// paint draws the traces in a file.
func paint(file string, panels []panel) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	return errors.Join(picture(f, panels), f.Close())
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "tracing:", err)
	os.Exit(1)
}

// serveMetrics is what a scraper asks: in the master, which has the sums.
func serveMetrics(ctx context.Context, addr string) error {
	mux := http.NewServeMux()
	mux.Handle("/metrics", otlp.PrometheusHandler())
	srv := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan error, 1)
	go func() { served <- srv.ListenAndServe() }() // ends with Close, below
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	err := srv.Close()
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}
