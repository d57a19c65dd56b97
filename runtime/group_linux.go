package coppice

import (
	"context"
	"log/slog"
	"syscall"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/process"
)

// groupGrace is how long the processes that a worker left behind in its group have to end after
// SIGTERM, before they are killed.
const groupGrace = 500 * time.Millisecond

// The kernel does not report the end of a process group, so it is polled at growing intervals.
const (
	groupPoll    = 5 * time.Millisecond
	maxGroupPoll = 100 * time.Millisecond
)

// endGroup ends the processes that the child left behind in its group: a helper of a worker that
// crashed, the programs that a shell script started. They get SIGTERM, unless they have had it, and
// SIGKILL when the grace is over or the child is killed.
func (b *processChild) endGroup() {
	if !b.proc.GroupAlive() {
		return
	}
	if !b.sent().has(syscall.SIGTERM) {
		b.terminate()
	}
	end, killed := time.NewTimer(b.how.grace), b.killed
	defer end.Stop()
	for pause := groupPoll; b.proc.GroupAlive(); pause = min(2*pause, maxGroupPoll) {
		select {
		case <-time.After(pause):
		case <-killed: // it is dying; a process that the kernel holds up is waited for only during the grace
			killed = nil
			end.Reset(groupGrace)
			pause = groupPoll
		case <-end.C:
			if killed == nil {
				return
			}
			b.kill()
		}
	}
}

// groupEnd is what is known of a child's group when the child has ended.
type groupEnd struct {
	oom     process.OOM
	counted string // see CrashReport.Cgroup
	usage   *ResourceUsage
}

// endCgroup reads the last figures of the child's cgroup, kills what is left in it, which has left
// the process group, and removes it.
func (b *processChild) endCgroup() {
	b.atEnd = groupEnd{b.oom.Verdict(), b.oom.Events(), b.groups.ended(groupNumber(b.how.label.ID, b.pid()), b.how.present().Name, b.own)}
	if err := b.own.Remove(groupGrace); err != nil {
		b.log.LogAttrs(context.Background(), slog.LevelWarn, "a cgroup cannot be removed yet: the next start of this program does that", slog.Any("err", err))
	}
}
