package coppice

import (
	"syscall"
	"time"
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
