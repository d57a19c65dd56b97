package coppice

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/output"
	"github.com/coppice-go/coppice/runtime/internal/process"
)

// TestStoppingUnderPresentName: the steps of a stop are logged under the name that the process has
// then: a spare that has taken a slot is called after it.
func TestStoppingUnderPresentName(t *testing.T) {
	var log lockedBuffer
	at := &assignment{name: "web/spare"}
	b := spawner{log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))}.watch(
		&process.Process{}, time.Now(), spawnRequest{label: output.Line{Name: at.name}, place: func() *assignment { return at }}, nil)
	defer b.oom.Stop()
	at = &assignment{name: "web/0"}
	b.asked("asked by frame")
	if !strings.Contains(log.String(), `name=web/0 pid=0 step="asked by frame"`) {
		t.Error(log.String())
	}
}
