//go:build linux

package examplestest

import (
	"context"
	"fmt"
	"syscall"
	"testing"

	"github.com/coppice-go/coppice/runtime/runtimetest"
)

// Reload reloads p, which was not reloaded before, so often. Before each reload, and after the last
// one, it waits until heard reports that all clients hear a generation; nil = it waits for none.
func Reload(t *testing.T, p *runtimetest.Program, reloads int, heard func(generation int) bool) {
	t.Helper()
	for generation := 1; ; generation++ {
		if heard != nil {
			runtimetest.Eventually(t, fmt.Sprintf("every client hears generation %d", generation), func() bool { return heard(generation) })
		}
		if generation > reloads {
			return
		}
		p.Signal(syscall.SIGHUP)
		p.Await(fmt.Sprintf(`reloaded generation=%d `, generation+1))
	}
}

// ReloadUnder reloads p so often while clients keep their connections to url. It fails the test if
// one of their requests does.
func ReloadUnder(t *testing.T, p *runtimetest.Program, url string, reloads int) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	load := make(chan runtimetest.Counts, 1)
	go func() { load <- runtimetest.Load{URL: url, InFlight: 4, KeepAlive: true}.Run(ctx) }()
	Reload(t, p, reloads, nil)
	stop()
	c := <-load
	t.Logf("%d reloads: %v", reloads, c)
	if c.OK == 0 || c.OK != c.Sent() {
		t.Errorf("want all ok: %v (%v)", c, c.First)
	}
}
