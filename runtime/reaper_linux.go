package coppice

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/process"
)

// reaper reaps orphans.
type reaper = process.Reaper

// orphansGrace is how long a zombie for which this program holds no pidfd stays; 0 = 5 s.
var orphansGrace time.Duration

// startReaper returns nil where the kernel gives orphans to another process, and the image of the
// program before this one has left no children that no code waits for.
func startReaper(log *slog.Logger, subreaper bool) (*reaper, error) {
	if os.Getpid() != 1 && !subreaper && !process.StrangersLeft() {
		return nil, nil
	}
	r, err := process.StartReaper(log, subreaper, orphansGrace)
	if err != nil {
		return nil, fmt.Errorf("coppice: reap orphans (Config.Subreaper): %w", err)
	}
	return r, nil
}
