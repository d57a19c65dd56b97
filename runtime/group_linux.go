package coppice

import (
	"syscall"
	"time"
)

// groupGrace is how long what a worker has left behind in its process group has
// to end, after a SIGTERM, before it is killed.
const groupGrace = 500 * time.Millisecond

// Nothing tells of the end of a process group, so it is looked for, ever more
// seldom.
const (
	groupPoll    = 5 * time.Millisecond
	maxGroupPoll = 100 * time.Millisecond
)

// endGroup ends what the process has left behind in its group: a helper of a
// worker that crashed, what a shell script has started. It gets SIGTERM, unless it
// has had it, and SIGKILL when grace is over or the child is killed.
func (b *processChild) endGroup() {
	if !b.proc.GroupAlive() {
		return
	}
	if !b.sent().has(syscall.SIGTERM) {
		b.terminate()
	}
	end, killed := time.NewTimer(b.grace), b.killed
	defer end.Stop()
	for pause := groupPoll; b.proc.GroupAlive(); pause = min(2*pause, maxGroupPoll) {
		select {
		case <-time.After(pause):
		case <-killed: // it is dying; what the kernel holds up is not waited for
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
