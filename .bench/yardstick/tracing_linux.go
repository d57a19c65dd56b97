package main

import (
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"time"

	"github.com/coppice-go/coppice/tracing/otlp"
)

// traced is what the flags of tracing say, beside those of accept.
var traced struct {
	sample   float64 // below 0: off
	metrics  bool
	endpoint string
}

func tracingFlags(fs *flag.FlagSet) {
	acceptFlags(fs)
	fs.Float64Var(&traced.sample, "sample", -1, "with -serve: part of the connections that is traced; below 0 means off")
	fs.BoolVar(&traced.metrics, "metrics", false, "with -serve: count")
	fs.StringVar(&traced.endpoint, "endpoint", "http://127.0.0.1:4318", "with -serve: where OTLP goes")
}

// serveTracing is the tree of accept with its telemetry as the flags say, in each
// of its processes.
func serveTracing() {
	cfg := otlp.Config{Endpoint: traced.endpoint, Traces: "none", Metrics: "none", ServiceName: "yardstick"}
	if traced.sample >= 0 {
		cfg.Traces, cfg.SampleRatio = "otlp", &traced.sample
	}
	if traced.metrics {
		cfg.Metrics = "prometheus"
	}
	if err := otlp.Use(cfg); err != nil {
		fmt.Fprintln(os.Stderr, "yardstick:", err)
		os.Exit(2)
	}
	serveAccept()
}

// tracingRows are the tree of accept, off and at several ratios. The collector is
// this program, which is not measured.
func tracingRows() []row {
	sink := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-protobuf")
	})) // until the program ends
	measure := func(sample float64, metrics bool) func(time.Duration) (result, error) {
		return func(d time.Duration) (result, error) {
			return loaded(func() (*server, error) {
				return startTree(append(treeArgs("tracing"), "-endpoint", sink.URL,
					"-sample", strconv.FormatFloat(sample, 'g', -1, 64), "-metrics="+strconv.FormatBool(metrics))...)
			}, "connections/s", true, d, connects)
		}
	}
	return []row{
		{"tracing_off", measure(-1, false)},
		{"tracing_metrics_only", measure(-1, true)},
		{"tracing_unsampled", measure(0, false)},
		{"tracing_1_percent", measure(0.01, false)},
		{"tracing_1_percent_metrics", measure(0.01, true)},
		{"tracing_all", measure(1, false)},
	}
}
