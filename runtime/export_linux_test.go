package coppice

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// GraceVar sets the grace of orphans in a process of the tests.
const GraceVar = "COPPICE_TEST_GRACE"

func init() {
	if d, err := time.ParseDuration(os.Getenv(GraceVar)); err == nil {
		orphansGrace = d
	}
}

// Deafen fills the queue of frames to a child that does not read.
func (rt *Runtime) Deafen(name string) {
	for _, p := range rt.children.all() {
		if p.name() == name {
			for p.conn.TrySend(childproto.NewFrame(childproto.FrameSpareReady, struct{}{})) == nil { // means nothing to a worker that has its slot
			}
		}
	}
}

// SayUnlinked makes a worker report of each link that it has ended, until ctx ends.
func SayUnlinked(ctx context.Context, w *Worker) {
	for tick := time.Tick(5 * time.Millisecond); ; {
		select {
		case <-tick:
		case <-ctx.Done():
			return
		}
		w.c.ReportLinksLost(errors.New("so the test says"))
	}
}

// BeforeUpgradeStep has f called before each step of an upgrade.
func BeforeUpgradeStep(f func(step string)) { beforeUpgradeStep = f }
