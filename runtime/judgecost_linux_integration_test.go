//go:build linux

package coppice_test

import (
	"context"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	coppice "github.com/coppice-go/coppice/runtime"
)

func init() {
	trees["judged and plain"] = func() coppice.Config {
		cfg := coppice.Config{Hooks: coppice.Hooks{Crash: func(coppice.CrashReport) {}}} // of both
		for _, name := range []string{"plain", "judged"} {
			p := coppice.Pool{Name: name, Size: 2, Worker: func(ctx context.Context, w *coppice.Worker) error {
				ln, err := w.Listener(ctx, name+"-http")
				if err != nil {
					return err
				}
				return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(rw, "hello") })})
			}}
			l := coppice.ListenerSpec{Name: name + "-http", Network: "tcp", Address: "127.0.0.1:0"}
			if name == "judged" {
				p.RequestTimeout = coppice.RequestTimeout{Soft: 10 * time.Second, Hard: 30 * time.Second}
				p.Poison = coppice.Poison{Deaths: 2}
				p.Canary = coppice.Canary{Slots: 1, Watch: time.Hour}
				p.Autoscale = coppice.Autoscale{Min: 2, Max: 4}
				l.Limits.PerWorker = 100
			}
			cfg.Children = append(cfg.Children, l, p)
		}
		return cfg
	}
}

// TestJudgementCost measures, in pairs, the CPU time that workers take for keep-alive requests with
// deadlines, quarantine, canary and autoscaling against none of them.
func TestJudgementCost(t *testing.T) {
	if os.Getenv("COPPICE_SOAK") == "" {
		t.Skip("it takes a while: COPPICE_SOAK=1")
	}
	p := startTree(t, "judged and plain")
	urls, clients := map[string]string{}, map[string]*http.Client{}
	for _, l := range p.Listeners() {
		pool := strings.TrimSuffix(l.Name, "-http")
		urls[pool], clients[pool] = "http://"+l.Addr.String(), &http.Client{Transport: &http.Transport{}}
		defer clients[pool].CloseIdleConnections()
	}
	used := func(pool string) (sum int64) {
		for name, n := range p.slots() {
			var ts unix.Timespec
			if strings.HasPrefix(name, pool+"/") {
				if err := unix.ClockGettime(int32(^n.PID)<<3|2, &ts); err != nil { // clock_getcpuclockid(3)
					t.Fatal(err)
				}
				sum += ts.Nano()
			}
		}
		return sum
	}
	const pairs, requests = 41, 3000
	run := func(pool string) float64 {
		before := used(pool)
		for range requests {
			resp, err := clients[pool].Get(urls[pool])
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		return float64(used(pool) - before)
	}
	run("plain")
	run("judged")
	var ratios []float64
	for i := range pairs {
		var plain, judged float64
		if i%2 == 0 {
			plain = run("plain")
		}
		judged = run("judged")
		if i%2 == 1 {
			plain = run("plain")
		}
		ratios = append(ratios, judged/plain)
		t.Logf("%.1f µs and %.1f µs a request", plain/requests/1000, judged/requests/1000)
	}
	slices.Sort(ratios)
	t.Logf("median %.3f of %d pairs, between %.3f and %.3f with 95 %%", ratios[pairs/2], pairs, ratios[13], ratios[pairs-1-13])
	if ratios[pairs/2] > 1.2 {
		t.Error("it costs too much")
	}
}
