package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// TestReloadUnderLoad (P6, and Puma's test_phased_restart_does_not_drop_connections with
// none of its tolerance): clients ask over fresh and over kept connections while the
// program is reloaded again and again: no client is refused, nothing fails, and no kept
// connection is closed under its client. Nor when every third release fails to boot, or
// hangs until its time is over.
func TestReloadUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("22 reloads, some of which hang")
	}
	for _, tt := range []struct {
		name       string
		bad        runtimetest.Release
		few, many  int
		start, why string
	}{
		{"good", runtimetest.Good, 10, 100, "30s", ""},
		{"every third fails to boot", runtimetest.Fails, 9, 99, "30s", "this release is broken"},
		{"every third hangs", runtimetest.Hangs, 3, 30, "3s", "has not called coppice.Main within 3s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			reloads := tt.few
			if soak {
				reloads = tt.many
			}
			in := runtimetest.Install(t)
			p := in.Start(nil, "-addr", "127.0.0.1:0", "-workers", "2", "-start-timeout", tt.start)
			h := &hello{p, t, p.Await(`^(http://\S+)/  master pid \d+$`)[1]}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			kept, fresh := make(chan runtimetest.Counts), make(chan runtimetest.Counts)
			go func() { kept <- runtimetest.Load{URL: h.url, InFlight: 4, KeepAlive: true}.Run(ctx) }()
			go func() { fresh <- runtimetest.Load{URL: h.url, InFlight: 4}.Run(ctx) }()
			good := 0
			for i := range reloads {
				release, outcome := runtimetest.Good, "reloaded"
				if i%3 == 2 && tt.bad != runtimetest.Good {
					release, outcome = tt.bad, `"reload failed"`
				} else {
					good++
				}
				in.Replace(release)
				h.Signal(syscall.SIGHUP)
				line := h.Await(fmt.Sprintf(`msg=%s generation=%d .*$`, outcome, i+2))[0]
				if release != runtimetest.Good && !strings.Contains(line, tt.why) {
					t.Errorf("the reason %q is not told: %s", tt.why, line)
				}
			}
			cancel()
			a, b := <-kept, <-fresh
			t.Logf("%d reloads, %d of them good: kept %v; fresh %v", reloads, good, a, b)
			for _, c := range []runtimetest.Counts{a, b} {
				if c.OK == 0 || c.OK != c.Sent() {
					t.Errorf("want all ok: %v", c)
				}
			}
			for _, n := range h.tree().Children {
				if n.Name == "web" && n.Used != 0 {
					t.Errorf("the supervisor has restarted %d workers", n.Used)
				}
			}
		})
	}
}
