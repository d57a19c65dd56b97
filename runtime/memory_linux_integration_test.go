//go:build linux

package coppice_test

import (
	"strings"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
)

func init() {
	trees["always over its memory"] = func() coppice.Config {
		cfg := pool(1, idle)
		web := cfg.Children[0].(coppice.Pool)
		web.Recycle = coppice.Recycle{SoftMemory: 1 << 20, Every: time.Millisecond}
		cfg.Children[0] = web
		return cfg
	}
}

// TestRecyclingBrake: a limit that every fresh worker exceeds recycles no worker twice in a row
// without a pause, and the log says what to do.
func TestRecyclingBrake(t *testing.T) {
	p := startTree(t, "always over its memory")
	const warning = "a fresh worker is over Recycle.SoftMemory, like the one before it: it is replaced later"
	runtimetest.Eventually(t, "the warning", func() bool { return strings.Contains(p.log.String(), warning) })
	if n := p.slots()["web/0"].Incarnation; n != 2 {
		t.Errorf("incarnation %d when recycling was held back first, want 2", n)
	}
	if text := p.log.String(); !strings.Contains(text, "limit=1048576 ") || !strings.Contains(text, "set it above what a worker takes when it has started") {
		t.Error("the warning does not say what to do")
	}
}
