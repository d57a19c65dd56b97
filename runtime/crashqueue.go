package coppice

import (
	"slices"
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/history"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/queue"
)

const (
	// maxCrashes is how many reports wait for Hooks.Crash.
	maxCrashes = 64

	// maxReports and maxReportBytes bound the reports that are kept for operators.
	maxReports     = 32
	maxReportBytes = 2 << 20

	// heldTimeout bounds how long the end of a worker waits for the listener process to list the
	// worker's connections.
	heldTimeout = 100 * time.Millisecond

	// crashFlush bounds how long the end of the tree waits for the last reports.
	crashFlush = time.Second
)

// crashQueue keeps the latest crash reports, and delivers all to Hooks.Crash, which may block.
type crashQueue struct {
	kept *history.Log[CrashReport]
	q    *queue.Queue[CrashReport] // nil when there is no hook
}

func newCrashQueue(to func(CrashReport)) *crashQueue {
	c := &crashQueue{kept: history.New(maxReports, maxReportBytes, CrashReport.size)}
	if to != nil {
		c.q = queue.New(queue.Config[CrashReport]{Take: func(r CrashReport) error { to(r); return nil }, Max: maxCrashes + 1}) // and the one that the hook has
	}
	return c
}

func (c *crashQueue) report(r CrashReport) {
	c.kept.Put(r)
	if c.q != nil {
		c.q.Put(r)
	}
}

// latest returns the reports that are kept, newest first.
func (c *crashQueue) latest() (reports []CrashReport) {
	for _, e := range slices.Backward(c.kept.Kept(0, maxReports)) {
		reports = append(reports, e.Value)
	}
	return reports
}

// size returns about how many bytes the report takes.
func (r CrashReport) size() int {
	n := 1024 + len(r.Dump) + len(r.Reason.Stack)
	for _, l := range r.Lines {
		n += 128 + len(l.Text)
	}
	return n
}

// close waits for the last reports, at most crashFlush, and returns how many were not delivered.
func (c *crashQueue) close() uint64 {
	if c.q == nil {
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
