package otlp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	coltracepb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/coppice-go/coppice/tracing"
	"github.com/coppice-go/coppice/tracing/otlp/otlptest"
)

const patience = time.Minute // of a test that waits for another goroutine

func TestMain(m *testing.M) {
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(error) {})) // absent backends are what we test
	for _, kv := range os.Environ() {
		if k, _, _ := strings.Cut(kv, "="); strings.HasPrefix(k, "OTEL_") {
			os.Unsetenv(k)
		}
	}
	os.Exit(m.Run())
}

var (
	masterProcess   = tracing.ProcessResource{Role: "master", Name: "master"}
	listenerProcess = tracing.ProcessResource{Role: "listener", Name: "listener/http", ID: 1, Slot: -1, Incarnation: 1}
	workerProcess   = tracing.ProcessResource{Role: "worker", Name: "web/1", ID: 7, Slot: 1, Generation: 2, Incarnation: 3}
)

var killed = tracing.End{At: time.Now().Add(time.Hour), PID: 4711, Type: "signaled", Reason: "signal: killed"}

func start(t *testing.T, p tracing.ProcessResource, up *tracing.Uplink) tracing.Pipeline {
	t.Helper()
	pl, err := tracing.Start(t.Context(), p, up)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shutdown(t, pl) })
	return pl
}

func shutdown(t *testing.T, pl tracing.Pipeline) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := pl.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// tree starts the pipelines of a master and two children that relay to it.
func tree(t *testing.T) (master, listener, worker tracing.Pipeline) {
	master = start(t, masterProcess, nil)
	return master, start(t, listenerProcess, uplink(master.Adopt(listenerProcess))), start(t, workerProcess, uplink(master.Adopt(workerProcess)))
}

// uplink is the way from a child's pipeline to the master's, without processes
// between them.
func uplink(c tracing.ChildTelemetry) *tracing.Uplink {
	return &tracing.Uplink{Send: c.Receive, Table: c.Table()}
}

// nowhere takes everything and keeps nothing.
var nowhere = &tracing.Uplink{Send: func(tracing.PayloadKind, []byte) error { return nil }}

// serveOne makes the spans of one connection.
func serveOne(listener, worker tracing.Pipeline) {
	accept := tracing.New(listener.TracerProvider()).Accept(tracing.AcceptSpan{Listener: "http"})
	handoff := accept.Handoff(tracing.Handoff{Pool: "web", Target: "web/1", Incarnation: 3})
	claim := tracing.New(worker.TracerProvider()).Claim(handoff.Carrier(), tracing.Claim{Pool: "web"})
	serve := claim.Serve()
	claim.End()
	handoff.EndOutcome(time.Time{}, tracing.Claimed, "")
	accept.End()
	serve.End()
}

func whole(tr otlptest.Trace) error { return tr.Has("accept", "hand-off", "claim", "serve") }

func TestOneTraceOverThreeProcesses(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Basic%20secret")
	t.Setenv("OTEL_SERVICE_NAME", "shop")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
	master, listener, worker := tree(t)
	serveOne(listener, worker)

	tr := r.Wait(t, patience, whole)
	for _, row := range []struct{ name, parent, kind, process string }{
		{"accept", "", "INTERNAL", "listener/http"},
		{"hand-off", "accept", "PRODUCER", "listener/http"},
		{"claim", "hand-off", "CONSUMER", "web/1"},
		{"serve", "claim", "INTERNAL", "web/1"},
	} {
		s := tr.Find(row.name)[0]
		parent, _ := tr.Parent(s)
		if parent.Name != row.parent || s.Kind != row.kind || s.Resource["coppice.actor.path"] != row.process {
			t.Errorf("%s: under %q, %s, in %s; want %+v", s.Name, parent.Name, s.Kind, s.Resource["coppice.actor.path"], row)
		}
		if s.Start.Before(parent.Start) {
			t.Errorf("%s starts before %s", s.Name, parent.Name)
		}
	}

	resource := tr.Find("serve")[0].Resource
	for k, want := range map[string]string{
		"service.name":                "shop",
		"service.instance.id":         "web/1#3",
		"process.pid":                 strconv.Itoa(os.Getpid()),
		"coppice.process.role":        "worker",
		"coppice.process.slot":        "1",
		"coppice.process.generation":  "2",
		"coppice.process.incarnation": "3",
		"coppice.process.id":          "7",
		"deployment.environment.name": "test",
		"telemetry.sdk.language":      "go",
	} {
		if resource[k] != want {
			t.Errorf("resource of the worker: %s=%q, want %q", k, resource[k], want)
		}
	}
	if slot, ok := tr.Find("accept")[0].Resource["coppice.process.slot"]; ok {
		t.Errorf("the listener has a slot: %s", slot)
	}
	for _, h := range r.Requests() {
		if h.Get("Authorization") != "Basic secret" {
			t.Errorf("a request without the header: %v", h)
		}
	}
	for _, pl := range []tracing.Pipeline{worker, listener, master} {
		shutdown(t, pl)
	}
	if s := worker.Stats(); s != (tracing.PipelineStats{Spans: 2}) {
		t.Errorf("worker: %+v", s)
	}
	if s := master.Stats(); s != (tracing.PipelineStats{Payloads: 2}) {
		t.Errorf("master: %+v", s)
	}
}

func TestServiceAndInstanceNames(t *testing.T) {
	for _, row := range []struct{ name, env, service, instance string }{
		{"nothing set", "", filepath.Base(os.Args[0]), "web/1#3"},
		{"by attributes", "service.name=shop,service.instance.id=pod-4", "shop", "pod-4/web/1#3"},
		{"unreadable", "nonsense", filepath.Base(os.Args[0]), "web/1#3"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Setenv("OTEL_RESOURCE_ATTRIBUTES", row.env)
			set := newResource(t.Context(), currentConfig(), workerProcess, 1).Set()
			service, _ := set.Value(tracing.KeyServiceName)
			instance, _ := set.Value(tracing.KeyServiceInstanceID)
			if service.AsString() != row.service || instance.AsString() != row.instance {
				t.Errorf("service %q, instance %q", service.AsString(), instance.AsString())
			}
		})
	}
}

// Shutdown sends what is queued without waiting for the delay, children first.
func TestShutdownFlushes(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	master, listener, worker := tree(t)
	serveOne(listener, worker)
	for _, pl := range []tracing.Pipeline{worker, listener, master} {
		shutdown(t, pl)
	}
	traces := r.Traces()
	if len(traces) != 1 || whole(traces[0]) != nil {
		t.Errorf("after Shutdown: %v", traces)
	}
	if err := master.Adopt(workerProcess).Receive(tracing.Spans, onePayload(t, 1)); err != nil {
		t.Error(err)
	}
	if s := master.Stats(); s.PayloadsDropped != 1 {
		t.Errorf("a payload after Shutdown: %+v", s)
	}
}

func TestSamplerFromTheEnvironment(t *testing.T) {
	r := otlptest.NewReceiver(t)
	r.Setenv(t)
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
	master, listener, worker := tree(t)
	serveOne(listener, worker)
	for _, pl := range []tracing.Pipeline{worker, listener, master} {
		shutdown(t, pl)
	}
	if n := len(r.Requests()); n != 0 {
		t.Errorf("%d requests for nothing", n)
	}
}

func TestOff(t *testing.T) {
	for _, row := range []struct{ name, variable, value string }{
		{"nothing set", "", ""},
		{"exporter none", "OTEL_TRACES_EXPORTER", "none"},
		{"sdk disabled", "OTEL_SDK_DISABLED", "true"},
	} {
		t.Run(row.name, func(t *testing.T) {
			if row.variable != "" {
				otlptest.NewReceiver(t).Setenv(t)
				t.Setenv(row.variable, row.value)
			}
			if tracing.New(start(t, masterProcess, nil).TracerProvider()) != nil {
				t.Error("tracing is on")
			}
		})
	}
}

func TestBadSettingIsOffAndSaysWhy(t *testing.T) {
	t.Setenv("OTEL_TRACES_EXPORTER", "zipkin")
	pl, err := tracing.Start(t.Context(), masterProcess, nil)
	if !errors.Is(err, ErrSetting) {
		t.Errorf("error %v, want ErrSetting", err)
	}
	if tracing.New(pl.TracerProvider()) != nil {
		t.Error("tracing is on")
	}
}

// A collector that does not run costs counters, and no wait.
func TestAbsentBackend(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+ln.Addr().String())
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}
	master := start(t, masterProcess, nil)
	tracing.New(master.TracerProvider()).Accept(tracing.AcceptSpan{}).End()
	shutdown(t, master)
	if s := master.Stats(); s != (tracing.PipelineStats{Spans: 1, Payloads: 1, PayloadsDropped: 1, MetricsDropped: 1}) {
		t.Errorf("%+v", s)
	}
}

// A collector that takes connections and never answers: Shutdown ends with its context.
func TestStalledBackend(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+ln.Addr().String())
	t.Setenv("OTEL_METRICS_EXPORTER", "none")
	master, err := tracing.Start(t.Context(), masterProcess, nil)
	if err != nil {
		t.Fatal(err)
	}
	tracing.New(master.TracerProvider()).Accept(tracing.AcceptSpan{}).End()
	ctx, cancel := context.WithCancel(t.Context())
	flushed := make(chan error, 1)
	go func() { // ends with ctx
		flushed <- master.TracerProvider().(interface{ ForceFlush(context.Context) error }).ForceFlush(ctx)
	}()
	c, err := ln.Accept() // the request is under way
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	cancel()
	if err := <-flushed; !errors.Is(err, context.Canceled) {
		t.Errorf("ForceFlush: %v, want its context's error", err)
	}
	if err := master.Shutdown(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v, want its context's error", err)
	}
	if s := master.Stats(); s != (tracing.PipelineStats{Spans: 1, Payloads: 1, PayloadsDropped: 1}) {
		t.Errorf("%+v", s)
	}
}

func TestRelayRefuses(t *testing.T) {
	otlptest.NewReceiver(t).Setenv(t)
	worker := start(t, workerProcess, &tracing.Uplink{
		Send: func(tracing.PayloadKind, []byte) error { return errors.New("full") },
	})
	tracing.New(worker.TracerProvider()).Accept(tracing.AcceptSpan{}).End()
	shutdown(t, worker)
	if s := worker.Stats(); s != (tracing.PipelineStats{Spans: 1, SpansDropped: 1}) {
		t.Errorf("%+v", s)
	}
}

func TestReceiveInAChildAndOfNonsense(t *testing.T) {
	otlptest.NewReceiver(t).Setenv(t)
	master, _, worker := tree(t)
	if err := worker.Adopt(workerProcess).Receive(tracing.Spans, onePayload(t, 1)); !errors.Is(err, tracing.ErrPayload) {
		t.Errorf("Receive in a child: %v, want ErrPayload", err)
	}
	for kind := range tracing.PayloadKind(3) {
		if err := master.Adopt(workerProcess).Receive(kind, []byte("nonsense")); !errors.Is(err, tracing.ErrPayload) {
			t.Errorf("Receive of nonsense of kind %d: %v, want ErrPayload", kind, err)
		}
	}
}

// The first pipeline of a process is the global one, until it is shut down.
func TestGlobalProvider(t *testing.T) {
	otlptest.NewReceiver(t).Setenv(t)
	for range 2 {
		first := start(t, masterProcess, nil)
		second := start(t, workerProcess, nowhere)
		if otel.GetTracerProvider() != first.TracerProvider() {
			t.Error("the first pipeline is not the global one")
		}
		if got := otel.GetTextMapPropagator().Fields(); len(got) != 3 {
			t.Errorf("propagated fields %v, want traceparent, tracestate, baggage", got)
		}
		shutdown(t, second)
		shutdown(t, first)
	}
}

// grpcCollector is the service of a collector, as in opentelemetry-proto.
type grpcCollector struct {
	coltracepb.UnimplementedTraceServiceServer
	got chan []byte
}

func (c grpcCollector) Export(ctx context.Context, req *coltracepb.ExportTraceServiceRequest) (*coltracepb.ExportTraceServiceResponse, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get("x-key"); len(got) != 1 || got[0] != "k" {
		return nil, fmt.Errorf("headers %v", md)
	}
	b, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: req.ResourceSpans})
	if err != nil {
		return nil, err
	}
	c.got <- b
	return &coltracepb.ExportTraceServiceResponse{}, nil
}

func TestGRPC(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	collector := grpcCollector{got: make(chan []byte, 10)}
	server := grpc.NewServer()
	coltracepb.RegisterTraceServiceServer(server, collector)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }() // ends by Stop
	defer func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"+ln.Addr().String())
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	t.Setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=k")

	master, listener, worker := tree(t)
	serveOne(listener, worker)
	for _, pl := range []tracing.Pipeline{worker, listener, master} {
		shutdown(t, pl)
	}
	close(collector.got)
	spans := 0
	for b := range collector.got {
		got, err := otlptest.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		spans += len(got)
	}
	if s := master.Stats(); spans != 4 || s.PayloadsDropped != 0 {
		t.Errorf("%d spans arrived, want 4; %+v", spans, s)
	}
}
