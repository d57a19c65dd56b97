package coppice

import (
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/queue"
)

const (
	// maxCrashes is how many reports wait for Hooks.Crash.
	maxCrashes = 64

	// heldTimeout bounds how long the end of a worker waits for the listener process to list the
	// worker's connections.
	heldTimeout = 100 * time.Millisecond

	// crashFlush bounds how long the end of the tree waits for the last reports.
	crashFlush = time.Second
)

// crashQueue delivers crash reports to Hooks.Crash, which may block.
type crashQueue struct{ q *queue.Queue[CrashReport] }

// newCrashQueue returns nil when to is nil.
func newCrashQueue(to func(CrashReport)) *crashQueue {
	if to == nil {
		return nil
	}
	return &crashQueue{queue.New(queue.Config[CrashReport]{Take: func(r CrashReport) error { to(r); return nil }, Max: maxCrashes + 1})} // and the one that the hook has
}

func (c *crashQueue) report(r CrashReport) { c.q.Put(r) }

// close waits for the last reports, at most crashFlush, and returns how many were not delivered.
func (c *crashQueue) close() uint64 {
	if c == nil {
		return 0
	}
	return c.q.Close(crashFlush)
}

// fillReport adds what a goroutine left: the stack of its panic.
func (b *goroutineChild) fillReport(r *CrashReport) {
	r.Time = time.Now()
	r.Uptime = r.Time.Sub(b.began)
	r.Dump = r.Reason.Stack
	if cut := len(r.Dump) - process.MaxDump; cut > 0 {
		r.Dump, r.Cut = strings.ToValidUTF8(r.Dump[:process.MaxDump], ""), cut
	}
}
