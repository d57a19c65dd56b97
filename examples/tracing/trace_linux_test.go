package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/tracing/otlp/otlptest"
)

// source is where the test reads traces: a collector of the test's own, or Jaeger.
type source interface {
	trace(ctx context.Context, id string) ([]span, error)
	find(ctx context.Context, name string, since time.Time) ([][]span, error)
}

// receiver is otlptest's collector, read as Jaeger is.
type receiver struct{ *otlptest.Receiver }

func (r receiver) trace(_ context.Context, id string) ([]span, error) {
	for _, t := range r.Traces() {
		if t.ID == id {
			return asJaeger(t), nil
		}
	}
	return nil, nil
}

func (r receiver) find(_ context.Context, name string, _ time.Time) (found [][]span, err error) {
	for _, t := range r.Traces() {
		if len(t.Find(name)) > 0 {
			found = append(found, asJaeger(t))
		}
	}
	return found, nil
}

// asJaeger says what arrived in the words of Jaeger's API.
func asJaeger(t otlptest.Trace) []span {
	tags := func(m map[string]string) (tags []tag) {
		for k, v := range m {
			tags = append(tags, tag{k, v})
		}
		return tags
	}
	var spans []span
	for _, s := range t.Spans {
		o := span{
			TraceID: s.TraceID, ID: s.SpanID, Name: s.Name, Start: s.Start.UnixMicro(), Duration: s.End.Sub(s.Start).Microseconds(),
			Tags: append(tags(s.Attributes), tag{"span.kind", strings.ToLower(s.Kind)}), process: tags(s.Resource),
		}
		if s.Error {
			o.Tags = append(o.Tags, tag{"error", true}, tag{"otel.status_description", s.Message})
		}
		o.refer("CHILD_OF", s.TraceID, s.ParentID)
		for i, id := range s.Links {
			o.refer("FOLLOWS_FROM", s.LinkTraces[i], id)
		}
		spans = append(spans, o)
	}
	slices.SortFunc(spans, func(a, b span) int { return int(a.Start - b.Start) })
	return spans
}

func (s *span) refer(kind, traceID, spanID string) {
	if spanID != "" {
		s.Refs = append(s.Refs, ref{kind, traceID, spanID})
	}
}

// One worker is killed in the middle of a request while a connection waits behind
// it. Read from a collector of the test's own, and from a real Jaeger.
func TestKilledWorker(t *testing.T) {
	t.Run("collector", func(t *testing.T) {
		r := otlptest.NewReceiver(t)
		testKilledWorker(t, r.URL(), receiver{r})
	})
	t.Run("jaeger", func(t *testing.T) {
		endpoint, api := startJaeger(t)
		testKilledWorker(t, endpoint, api)
	})
}

func testKilledWorker(t *testing.T, endpoint string, src source) {
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	began := time.Now()
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0", "-endpoint", endpoint)
	url := p.Await(`^(http://\S+)/  master`)[1]
	// The connection that waited: the whole chain, over the listener and two workers. On a machine
	// that is short of time it may have been the other worker's from the beginning.
	var died, waited answered
	var spans, handoffs, claims []span
	for len(handoffs) < 2 {
		var err error
		if died, waited, err = accident(ctx, url); err != nil {
			t.Fatal(err)
		}
		spans = await(t, ctx, src, waited.trace, "accept", "queue", "serve", "GET /", "render")
		handoffs, claims = named(spans, "hand-off"), named(spans, "claim")
	}
	if len(handoffs) != 2 || len(claims) != 2 {
		t.Fatalf("%d hand-offs and %d claims, want 2 of each:\n%s", len(handoffs), len(claims), show1(spans))
	}
	accept, serve := named(spans, "accept")[0], named(spans, "serve")[0]
	for _, row := range []struct {
		child, parent span
		kind          string
	}{
		{named(spans, "queue")[0], accept, "internal"},
		{handoffs[0], accept, "producer"},
		{handoffs[1], accept, "producer"},
		{claims[0], handoffs[0], "consumer"},
		{claims[1], handoffs[1], "consumer"},
		{serve, claims[1], "internal"},
		{named(spans, "GET /")[0], serve, "server"},
		{named(spans, "render")[0], named(spans, "GET /")[0], "internal"},
	} {
		if row.child.parent() != row.parent.ID || row.child.tag("span.kind") != row.kind {
			t.Errorf("%s is %s and not under %s", row.child.Name, row.child.tag("span.kind"), row.parent.Name)
		}
	}
	if p := accept.parent(); p != "" {
		t.Errorf("accept is under %s", p)
	}
	chain := []span{accept, named(spans, "queue")[0], handoffs[0], handoffs[1], claims[1], serve}
	for i, s := range chain[1:] {
		if s.Start < chain[i].Start {
			t.Errorf("%s starts %d µs before %s", s.Name, chain[i].Start-s.Start, chain[i].Name)
		}
	}
	documented(t, spans)
	processes := map[string]bool{}
	for _, s := range spans {
		processes[s.resource("process.pid")] = true
	}
	if len(processes) < 3 {
		t.Errorf("the trace is over processes %v, want 3", processes)
	}
	if claims[0].resource("process.pid") != strconv.Itoa(died.pid) || serve.resource("process.pid") != strconv.Itoa(waited.pid) {
		t.Errorf("claimed in process %s and served in %s, want %d and %d",
			claims[0].resource("process.pid"), serve.resource("process.pid"), died.pid, waited.pid)
	}
	if !handoffs[0].failed() || handoffs[0].tag("coppice.handoff.outcome") != "returned" || handoffs[0].tag("coppice.handoff.reason") != "worker ended" {
		t.Errorf("the first hand-off: %v", handoffs[0].Tags)
	}
	if l := handoffs[1].links(); len(l) != 1 || l[0][1] != handoffs[0].ID || handoffs[1].failed() {
		t.Errorf("the second hand-off links to %v", l)
	}
	const signal = "ended: signal 9 (killed)"
	if s := claims[0]; !s.failed() || !strings.HasSuffix(why(s), signal) || s.tag("coppice.span.recovered") != "true" || s.tag("error.type") != "signaled" {
		t.Errorf("what the killed worker had open: %v", s.Tags)
	}

	// The request that died: what it had finished, and what it had open.
	spans = await(t, ctx, src, died.trace, "accept", "hand-off", "claim", "serve", "GET /charge", "render", "charge card")
	for name, open := range map[string]bool{"claim": false, "serve": true, "GET /charge": true, "render": false, "charge card": true} {
		s := named(spans, name)[0]
		if s.failed() != open || open && !strings.HasSuffix(why(s), signal) {
			t.Errorf("%s: failed %v, %q", name, s.failed(), why(s))
		}
	}
	if card := named(spans, "charge card")[0]; card.parent() != named(spans, "GET /charge")[0].ID {
		t.Error("the card is not under its request")
	}

	// The restart links to it. One of an accident that was not what it should be links to another.
	serving := [2]string{died.trace, named(spans, "serve")[0].ID}
	var restart []span
	if err := poll(ctx, "find the restart", func() (bool, error) {
		traces, err := src.find(ctx, "restart", began)
		for _, restart = range traces {
			if slices.Contains(named(restart, "restart")[0].links(), serving) && len(named(restart, "start")) > 0 {
				return true, nil
			}
		}
		return false, cmp.Or(err, fmt.Errorf("of %d restarts none links to %v", len(traces), serving))
	}); err != nil {
		t.Fatal(err)
	}
	documented(t, restart)
	r := named(restart, "restart")[0]
	if r.resource("coppice.process.role") != "master" || r.tag("coppice.restart.attempt") == "" ||
		r.tag("coppice.restart.budget.limit") != "100" || !strings.Contains(r.tag("coppice.exit.reason"), "signal 9") {
		t.Errorf("the restart has %v", r.Tags)
	}
	if s := named(restart, "start")[0]; s.parent() != r.ID {
		t.Error("the start is not under the restart")
	}

	// A line of the log has the trace's id.
	want := "trace_id=" + died.trace
	if !slices.ContainsFunc(p.Lines(), func(l string) bool { return strings.Contains(l, "charging a card") && strings.Contains(l, want) }) {
		t.Errorf("no line of the log with %s", want)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// documented sees to it that the manual has every attribute of Coppice's spans and of
// their processes.
func documented(t *testing.T, spans []span) {
	t.Helper()
	manual, err := os.ReadFile("../../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	theirs := []string{"span.kind", "error", "otel.", "internal.", "w3c.", "deployment."} // Jaeger's, and the shop's
	known := func(tags []tag) {
		for _, tag := range tags {
			if !bytes.Contains(manual, []byte("`"+tag.Key+"`")) && !slices.ContainsFunc(theirs, func(p string) bool { return strings.HasPrefix(tag.Key, p) }) {
				t.Errorf("docs/observability.md does not name %s", tag.Key)
			}
		}
	}
	for _, s := range spans {
		if slices.Contains([]string{"accept", "queue", "hand-off", "claim", "serve", "restart", "start"}, s.Name) {
			known(s.Tags)
			known(s.process)
		}
	}
}

func named(spans []span, name string) (found []span) {
	for _, s := range spans {
		if s.Name == name {
			found = append(found, s)
		}
	}
	return found
}

// await waits for the trace to have a span of each name.
func await(t *testing.T, ctx context.Context, src source, id string, names ...string) (spans []span) {
	t.Helper()
	err := poll(ctx, "wait for trace "+id, func() (bool, error) {
		var err error
		if spans, err = src.trace(ctx, id); err != nil {
			return false, err
		}
		for _, name := range names {
			if len(named(spans, name)) == 0 {
				return false, fmt.Errorf("no %q", name)
			}
		}
		return true, nil
	})
	if err != nil {
		t.Fatalf("%v\n%s", err, show1(spans))
	}
	return spans
}

func show1(spans []span) string {
	var b strings.Builder
	if len(spans) > 0 {
		waterfall(&b, spans)
	}
	return b.String()
}

// startJaeger starts a real Jaeger on free ports. Where none is built the test is
// skipped; COPPICE_JAEGER=1 builds it.
func startJaeger(t *testing.T) (endpoint string, api jaegerAPI) {
	bin := jaegerBinary()
	if _, err := os.Stat(bin); err != nil {
		if os.Getenv("COPPICE_JAEGER") == "" {
			t.Skipf("no Jaeger at %s: COPPICE_JAEGER=1 builds it, in some ten minutes (go test -timeout 30m)", bin)
		}
		if err := buildJaeger(t.Context(), bin, os.Stderr); err != nil {
			t.Fatal(err)
		}
	}
	p := ports{freePort(t), freePort(t), freePort(t)}
	args := jaegerCommand(bin, p)
	cmd := exec.Command(args[0], args[1:]...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	api = jaegerAPI{fmt.Sprintf("http://127.0.0.1:%d", p.query)}
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	if err := poll(ctx, "wait for Jaeger", func() (bool, error) {
		_, err := api.get(ctx, "/api/traces/1")
		return err == nil, err
	}); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("http://127.0.0.1:%d", p.otlp), api
}

// TestInterruptedBuild: a Ctrl-C while Jaeger is being built leaves nothing of it behind.
func TestInterruptedBuild(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"Ctrl-C": syscall.SIGINT, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			bin, cache := t.TempDir(), t.TempDir()
			// In place of go: it takes its time until it is interrupted.
			if err := os.WriteFile(filepath.Join(bin, "go"), []byte("#!/bin/sh\nexec sleep 600\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			p := runtimetest.Start(t, []string{"PATH=" + bin + ":" + os.Getenv("PATH"), "XDG_CACHE_HOME=" + cache}, "-jaeger")
			p.Await(`building Jaeger`)
			p.Signal(sig)
			if code := p.Wait(); code != 1 {
				t.Errorf("exit code %d", code)
			}
			left, err := filepath.Glob(filepath.Join(cache, "coppice", "*", "*"))
			if err != nil || len(left) != 0 {
				t.Errorf("left behind: %q, %v", left, err)
			}
		})
	}
}

// freePort returns a port without a listener, which the kernel gives to no socket that asks for any
// port (ip_local_port_range). Another program may take it before its user does, which the user then
// says.
func freePort(t *testing.T) int {
	for {
		port := 20_000 + rand.IntN(12_000)
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		return port
	}
}

// Twenty workers die; what a scraper sees never goes back, and nothing that was
// counted where no process died is missing, nor what the dead had sent.
func TestCountersNeverGoBack(t *testing.T) {
	const deaths = 20
	ctx, cancel := context.WithTimeout(t.Context(), 2*runtimetest.Patience)
	defer cancel()
	scraped := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p := runtimetest.Start(t, []string{"OTEL_METRICS_PRODUCERS=prometheus"}, "-addr", "127.0.0.1:0", "-metrics", scraped)
	url := p.Await(`^(http://\S+)/  master`)[1]

	before := map[string]float64{}
	look := func() map[string]float64 {
		now := scrape(t, "http://"+scraped+"/metrics")
		for k, v := range before {
			if w, ok := now[k]; !ok || w < v {
				t.Fatalf("%s went from %v to %v (there: %v)", k, v, w, ok)
			}
		}
		before = now
		return now
	}
	const pages = `shop_pages_total` // counted by the workers, with OpenTelemetry's API
	asked := 0
	for death := range deaths {
		a, body, err := ask(ctx, url+"/")
		if err != nil {
			t.Fatal(err)
		}
		body.Close()
		asked++
		p.Await(fmt.Sprintf(`"supervisor: started" path=master/web/.* process.pid=%d `, a.pid)) // else its death is one of a start
		if death < 4 {                                                                          // a worker tells once a second
			if err := poll(ctx, "count the page", func() (bool, error) {
				now := look()
				return now[pages] == float64(asked), fmt.Errorf("%v pages, want %d", now[pages], asked)
			}); err != nil {
				t.Fatal(err)
			}
		}
		look()
		if err := syscall.Kill(a.pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := poll(ctx, "wait for the death", func() (bool, error) {
			return syscall.Kill(a.pid, 0) == syscall.ESRCH, nil
		}); err != nil {
			t.Fatal(err)
		}
		look()
	}
	const (
		restarts = `coppice_child_restarts_total{coppice_child_path="web",coppice_exit_kind="signaled"}`
		claimed  = `coppice_handoff_offers_total{coppice_handoff_outcome="claimed",coppice_pool_name="web"}`
		duration = `coppice_handoff_duration_seconds_count{coppice_pool_name="web"}`
	)
	if err := poll(ctx, "count what happened", func() (bool, error) {
		now := look()
		if now[restarts] == deaths && now[claimed] == float64(asked) && now[duration] == float64(asked) && now[pages] >= 4 && now[pages] <= float64(asked) {
			return true, nil
		}
		return false, fmt.Errorf("%v restarts, %v claimed, %v timed, %v pages; want %d, %d", now[restarts], now[claimed], now[duration], now[pages], deaths, asked)
	}); err != nil {
		t.Fatal(err)
	}
	if err := poll(ctx, "count two that run", func() (bool, error) {
		running := scrapeAll(t, "http://"+scraped+"/metrics", "")[`coppice_pool_workers{coppice_child_state="running",coppice_pool_name="web"}`]
		return running == 2, fmt.Errorf("%v run", running)
	}); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGHUP)
	if err := poll(ctx, "count the reload, and what each process uses", func() (bool, error) {
		look()
		now := scrapeAll(t, "http://"+scraped+"/metrics", "")
		missing := []string{}
		for series, ok := range map[string]func(v float64) bool{
			"coppice_reloads_total": func(v float64) bool { return v == 1 },
			"coppice_generation":    func(v float64) bool { return v == 2 },
			`coppice_connection_open{coppice_child_path="web/0",coppice_pool_name="web"}`:                        func(v float64) bool { return v == 0 },
			`go_goroutines{coppice_actor_path="web/1"}`:                                                          func(v float64) bool { return v > 0 }, // client_golang's
			`coppice_connection_turned_away_total{coppice_listener_name="http"}`:                                 func(v float64) bool { return v == 0 },
			`coppice_connection_parked{coppice_listener_name="http"}`:                                            func(v float64) bool { return v == 0 },
			`coppice_connection_parking_ends_total{coppice_listener_name="http",coppice_parking_outcome="left"}`: func(v float64) bool { return v >= 0 },
		} {
			if v, there := now[series]; !there || !ok(v) {
				missing = append(missing, fmt.Sprintf("%s is %v", series, v))
			}
		}
		for place, pool := range map[string]string{"master": "", "listener": "listeners", "web/0": "web", "web/1": "web"} {
			labels := fmt.Sprintf("{coppice_child_path=%q,coppice_pool_name=%q}", place, pool)
			for _, name := range []string{"coppice_process_memory_usage_bytes", "coppice_process_cpu_time_seconds_total", "coppice_process_unix_file_descriptor_count"} {
				if now[name+labels] <= 0 {
					missing = append(missing, fmt.Sprintf("%s is %v", name+labels, now[name+labels]))
				}
			}
		}
		return len(missing) == 0, fmt.Errorf("%q", missing)
	}); err != nil {
		t.Fatal(err)
	}
}

// scrape returns what only grows, by series.
func scrape(t *testing.T, url string) map[string]float64 {
	t.Helper()
	return scrapeAll(t, url, "counter histogram")
}

// scrapeAll returns the series of the given types, or of all. It has a patience of its own, so that
// who polls can say at the end of its own what was missing.
func scrapeAll(t *testing.T, url, types string) map[string]float64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	series := map[string]float64{}
	if err := poll(ctx, "scrape", func() (bool, error) {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return false, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return false, err // the listener may be young
		}
		defer resp.Body.Close()
		var b bytes.Buffer
		if _, err := b.ReadFrom(resp.Body); err != nil {
			return false, err
		}
		wanted := false
		for line := range strings.Lines(b.String()) {
			line = strings.TrimSpace(line)
			if rest, ok := strings.CutPrefix(line, "# TYPE "); ok {
				_, typ, _ := strings.Cut(rest, " ")
				wanted = types == "" || strings.Contains(types, typ)
			}
			at := strings.LastIndexByte(line, ' ')
			if !wanted || strings.HasPrefix(line, "#") || at < 0 {
				continue
			}
			if series[line[:at]], err = strconv.ParseFloat(line[at+1:], 64); err != nil {
				return false, err
			}
		}
		return true, nil
	}); err != nil {
		t.Fatal(err)
	}
	return series
}

// A process that is asked to end first sends what it has: the whole trace of a request that was
// answered just before is there when the program has ended.
func TestDrainFlushes(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	r := otlptest.NewReceiver(t)
	p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0", "-endpoint", r.URL())
	url := p.Await(`^(http://\S+)/  master`)[1]
	a, body, err := ask(ctx, url+"/")
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	spans, _ := receiver{r}.trace(ctx, a.trace)
	for _, name := range []string{"accept", "queue", "hand-off", "claim", "serve", "GET /", "render"} {
		if len(named(spans, name)) != 1 {
			t.Errorf("%d of %s:\n%s", len(named(spans, name)), name, show1(spans))
		}
	}
}

// A collector that is not there, or takes a request and never answers, costs counters;
// and the program ends when it is told to.
func TestNoCollector(t *testing.T) {
	for name, stalled := range map[string]bool{"absent": false, "stalled": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
			defer cancel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			if !stalled {
				ln.Close()
			}
			scraped := fmt.Sprintf("127.0.0.1:%d", freePort(t))
			p := runtimetest.Start(t, nil, "-addr", "127.0.0.1:0", "-endpoint", "http://"+ln.Addr().String(), "-metrics", scraped)
			url := p.Await(`^(http://\S+)/  master`)[1]
			_, body, err := ask(ctx, url+"/")
			if err != nil {
				t.Fatal(err)
			}
			body.Close()
			if err := poll(ctx, "count what was dropped", func() (bool, error) {
				now := scrape(t, "http://"+scraped+"/metrics")
				return stalled || now["coppice_telemetry_payloads_dropped_total"] > 0, fmt.Errorf("%v", now)
			}); err != nil {
				t.Fatal(err)
			}
			p.Signal(syscall.SIGTERM)
			if code := p.Wait(); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
