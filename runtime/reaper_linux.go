package coppice

import (
	"fmt"
	"os"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/process"
)

// reaper reaps orphans.
type reaper = process.Reaper

// orphansGrace is how long a zombie for which this program holds no pidfd stays; 0 = 5 s.
var orphansGrace time.Duration

// startReaper returns nil where the kernel gives orphans to another process.
func (rt *Runtime) startReaper() (*reaper, error) {
	if os.Getpid() != 1 && !rt.cfg.Subreaper {
		return nil, nil
	}
	r, err := process.StartReaper(rt.log, rt.cfg.Subreaper, orphansGrace)
	if err != nil {
		return nil, fmt.Errorf("coppice: reap orphans (Config.Subreaper): %w", err)
	}
	return r, nil
}
