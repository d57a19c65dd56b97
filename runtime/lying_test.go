package coppice

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// TestLyingChild: the lines of log that a child can cause by frames that mean
// nothing grow with the logarithm of their number.
func TestLyingChild(t *testing.T) {
	var b bytes.Buffer
	p := &poolWorker{
		driver:   &poolDriver{poolParts: poolParts{log: slog.New(slog.NewTextHandler(&b, nil))}},
		hello:    childproto.Hello{ID: 3},
		attached: make(chan struct{}),
	}
	p.assigned.Store(&assignment{name: "web/0"})
	close(p.attached)
	const frames = 100_000
	for range frames {
		p.handle(nil, &fdipc.Frame{Kind: childproto.FrameExitNotice, Payload: []byte("{")})
	}
	lines := strings.Count(b.String(), "\n")
	if lines != 17 || !strings.Contains(b.String(), "frames=65536") {
		t.Errorf("%d frames caused %d lines, the last: %s", frames, lines, b.String()[max(0, b.Len()-300):])
	}
}
