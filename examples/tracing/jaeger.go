package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// Jaeger is built from its Go modules, which is all that a machine without
// containers needs.
const (
	jaegerVersion = "v1.76.0" // its command cmd/jaeger is what is called Jaeger v2
	jaegerModule  = "github.com/jaegertracing/jaeger"
)

// jaegerBinary is where the built program is kept.
func jaegerBinary() string {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	return filepath.Join(cache, "coppice", "jaeger-"+jaegerVersion+"-"+runtime.GOOS+"-"+runtime.GOARCH, "jaeger")
}

// buildJaeger builds the program at bin, unless it is there, and tells progress how far it is. It
// takes some ten minutes of two cores, once. When ctx ends first nothing is left of it.
func buildJaeger(ctx context.Context, bin string, progress io.Writer) (err error) {
	if _, err := os.Stat(bin); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(bin), 0o755); err != nil {
		return err
	}
	// A directory of its own: two that build at a time are not in each other's way.
	src, err := os.MkdirTemp(filepath.Dir(bin), "build-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(src)) }()
	fmt.Fprintf(progress, "building Jaeger %s from its modules, once, in %s: some ten minutes\n", jaegerVersion, filepath.Dir(bin))
	step := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // it has files of its own to remove
		cmd.WaitDelay = 5 * time.Second
		cmd.Dir = src
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, tail(stderr.String(), 20))
		}
		return out, nil
	}
	if _, err := step("mod", "init", "jaeger.local/tool"); err != nil {
		return err
	}
	// Jaeger's own replace, which is why `go install PKG@VERSION` refuses it.
	if _, err := step("mod", "edit", "-replace", "github.com/Shopify/sarama=github.com/Shopify/sarama@v1.33.0"); err != nil {
		return err
	}
	fmt.Fprintln(progress, "  downloading modules")
	out, err := step("mod", "download", "-json", jaegerModule+"@"+jaegerVersion)
	if err != nil {
		return err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal(out, &module); err != nil {
		return err
	}
	// Its go.sum, which is itself checked, vouches for one dependency that the
	// checksum database does not have.
	sums, err := os.ReadFile(filepath.Join(module.Dir, "go.sum"))
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(src, "go.sum"), sums, 0o644); err != nil {
		return err
	}
	if _, err := step("get", "-tool", jaegerModule+"/cmd/jaeger@"+jaegerVersion); err != nil {
		return err
	}
	built := filepath.Join(src, "jaeger")
	began := time.Now()
	stop := tick(func() {
		fmt.Fprintf(progress, "  compiling for %v\n", time.Since(began).Round(time.Second))
	})
	_, err = step("build", "-trimpath", "-ldflags", "-s -w", "-o", built, jaegerModule+"/cmd/jaeger")
	stop()
	if err != nil {
		return err
	}
	fmt.Fprintf(progress, "  done in %v\n", time.Since(began).Round(time.Second))
	return os.Rename(built, bin)
}

// tick calls f every 15 s, on a goroutine of its own, until stop.
func tick(f func()) (stop func()) {
	ticker, quit, done := time.NewTicker(15*time.Second), make(chan struct{}), make(chan struct{})
	go func() { // ends by stop
		defer close(done)
		for {
			select {
			case <-ticker.C:
				f()
			case <-quit:
				return
			}
		}
	}()
	return func() { ticker.Stop(); close(quit); <-done }
}

func tail(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// ports of one Jaeger, all on the loopback interface.
type ports struct{ otlp, query, queryGRPC int }

var defaultPorts = ports{4318, 16686, 16685}

// jaegerCommand is the command line of a Jaeger that keeps 10,000 traces in memory
// and listens where no other machine can reach it. (By default it listens on all interfaces,
// at 14 ports. It also traces itself, to a port without a listener, and needs ten seconds
// to end for that.)
func jaegerCommand(bin string, p ports) []string {
	return []string{bin, "--config", fmt.Sprintf(`yaml:
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines: {traces: {receivers: [otlp], exporters: [jaeger_storage_exporter]}}
  telemetry: {metrics: {level: none}, traces: {level: none}, logs: {level: error}}
extensions:
  jaeger_query:
    storage: {traces: memory}
    enable_tracing: false
    http: {endpoint: "127.0.0.1:%d"}
    grpc: {endpoint: "127.0.0.1:%d"}
  jaeger_storage: {backends: {memory: {memory: {max_traces: 10000}}}}
receivers:
  otlp: {protocols: {http: {endpoint: "127.0.0.1:%d"}}}
exporters:
  jaeger_storage_exporter: {trace_storage: memory}
`, p.query, p.queryGRPC, p.otlp)}
}
