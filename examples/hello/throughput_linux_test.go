package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// plainVar makes the test binary a plain net/http server on the listener that it
// inherits as descriptor 3: what hello is measured against.
const plainVar = "HELLO_PLAIN"

func plain() {
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		panic(err)
	}
	fmt.Println("serving")
	panic(http.Serve(ln, routes(new(coppice.Worker))))
}

// startPlain starts n plain servers on one listener and returns its address.
func startPlain(t *testing.T, n int) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		runtimetest.StartWith(t, []string{plainVar + "=1"}, []*os.File{f}).Await("serving")
	}
	f.Close()
	ln.Close()
	return "http://" + ln.Addr().String()
}

// TestKeepAliveThroughput compares requests a second over 32 keep-alive
// connections: through two workers, and through two plain processes on a shared
// listener. The figures are printed, not judged: a loaded machine proves nothing.
// Rounds are paired, and their order turns.
func TestKeepAliveThroughput(t *testing.T) {
	if !soak {
		t.Skip("a measurement, which fails for nothing: COPPICE_SOAK=1")
	}
	const rounds, length = 11, 3 * time.Second
	ours := start(t, "-workers", "2", "-quiet").url
	theirs := startPlain(t, 2)
	rate := throughput(t)
	rate(ours, length)
	rate(theirs, length)
	var ratios []float64
	for round := range rounds {
		urls := []string{ours, theirs}
		if round%2 == 1 {
			slices.Reverse(urls)
		}
		got := map[string]float64{}
		for _, url := range urls {
			got[url] = rate(url, length)
		}
		t.Logf("coppice %.0f/s, plain %.0f/s", got[ours], got[theirs])
		ratios = append(ratios, got[ours]/got[theirs])
	}
	slices.Sort(ratios)
	t.Logf("coppice/plain: median %.3f, from %.3f to %.3f", ratios[len(ratios)/2], ratios[0], ratios[len(ratios)-1])
}

// throughput returns what measures requests a second: wrk where it is installed,
// else a loop of ours, whose own cost hides some of the difference.
func throughput(t *testing.T) func(url string, d time.Duration) float64 {
	const connections = 32
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		t.Log("measured with net/http's client: wrk is not installed")
		return func(url string, d time.Duration) float64 {
			ctx, cancel := context.WithTimeout(t.Context(), d)
			defer cancel()
			begun := time.Now()
			c := runtimetest.Load{URL: url, InFlight: connections, KeepAlive: true}.Run(ctx)
			return float64(c.OK) / time.Since(begun).Seconds()
		}
	}
	line := regexp.MustCompile(`Requests/sec:\s+([0-9.]+)`)
	return func(url string, d time.Duration) float64 {
		// wrk counts whole seconds.
		out, err := exec.Command(wrk, "-t1", "-c", strconv.Itoa(connections), "-d", fmt.Sprintf("%ds", max(1, int(d.Seconds()))), url).CombinedOutput()
		if err != nil {
			t.Fatalf("wrk: %v\n%s", err, out)
		}
		m := line.FindSubmatch(out)
		if m == nil {
			t.Fatalf("wrk says nothing of requests:\n%s", out)
		}
		n, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
}
