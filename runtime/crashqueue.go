package coppice

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/handover"
	"github.com/coppice-go/coppice/runtime/internal/history"
	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/queue"
	"github.com/coppice-go/coppice/supervisor"
)

const (
	// maxCrashes is how many reports wait for Hooks.Crash.
	maxCrashes = 64

	// maxReports and maxReportBytes bound the reports that are kept for operators.
	maxReports     = 32
	maxReportBytes = 2 << 20

	// maxCrashEvents is how many of the tree's events before it a report has.
	maxCrashEvents = 32

	// heldTimeout bounds how long the end of a worker waits for the listener process to list the
	// worker's connections.
	heldTimeout = 100 * time.Millisecond

	// crashFlush bounds how long the end of the tree waits for the last reports.
	crashFlush = time.Second
)

// crashQueue keeps the latest crash reports, and delivers all to Hooks.Crash, which may block.
type crashQueue struct {
	kept   *history.Log[CrashReport]
	events *history.Log[Event]       // of the tree; nil = none
	q      *queue.Queue[CrashReport] // nil when there is no hook
}

func newCrashQueue(to func(CrashReport), events *history.Log[Event]) *crashQueue {
	c := &crashQueue{events: events, kept: history.New(maxReports, maxReportBytes, CrashReport.size)}
	if to != nil {
		c.q = queue.New(queue.Config[CrashReport]{Take: func(r CrashReport) error { to(r); return nil }, Max: maxCrashes + 1}) // and the one that the hook has
	}
	return c
}

func (c *crashQueue) report(r CrashReport) {
	if c.events != nil {
		newest := c.events.Last()
		for _, e := range c.events.Kept(newest-min(newest, maxCrashEvents), maxCrashEvents) {
			r.Events = append(r.Events, supervisor.Cut(e.Value.Time.UTC().Format(clockLayout)+" "+e.Value.String()))
		}
	}
	c.kept.Put(r)
	if c.q != nil {
		c.q.Put(r)
	}
}

// latest returns the reports that are kept, newest first.
func (c *crashQueue) latest() (reports []CrashReport) {
	for _, e := range slices.Backward(c.kept.Kept(0, maxReports)) {
		e.Value.Number = e.Cursor
		reports = append(reports, e.Value)
	}
	return reports
}

// A pastCrash is a report as plain data.
type pastCrash struct {
	Report CrashReport
	Reason supervisor.PastReason
	Lost   string // of Exit
}

// save returns the reports that are kept, for the program that replaces this one.
func (c *crashQueue) save() ([]byte, error) {
	var all []pastCrash
	for _, r := range slices.Backward(c.latest()) {
		p := pastCrash{Report: r, Reason: r.Reason.Past()}
		if r.Exit.Lost != nil {
			p.Lost = r.Exit.Lost.Error()
		}
		p.Report.Dump, p.Report.Lines = strings.ToValidUTF8(r.Dump, "?"), slices.Clone(r.Lines)
		p.Report.Cgroup, p.Report.Spans, p.Report.Events = strings.ToValidUTF8(r.Cgroup, "?"), slices.Clone(r.Spans), slices.Clone(r.Events)
		for i, s := range r.Spans {
			p.Report.Spans[i].Name = strings.ToValidUTF8(s.Name, "?")
		}
		for i, e := range r.Events {
			p.Report.Events[i] = strings.ToValidUTF8(e, "?")
		}
		for i, l := range r.Lines {
			p.Report.Lines[i].Text = strings.ToValidUTF8(l.Text, "?")
		}
		all = append(all, p)
	}
	return handover.EncodePart(all)
}

// takeOver takes the reports that the program before this one has kept. They were delivered there.
func (c *crashQueue) takeOver(saved []byte) error {
	var all []pastCrash
	if err := handover.DecodePart(saved, &all); err != nil {
		return err
	}
	for _, p := range all {
		r := p.Report
		if r.Reason = p.Reason.Reason(); p.Lost != "" {
			r.Exit.Lost = errors.New(p.Lost)
		}
		c.kept.Put(r)
	}
	return nil
}

// size returns about how many bytes the report takes.
func (r CrashReport) size() int {
	n := 1024 + len(r.Dump) + len(r.Reason.Stack)
	for _, l := range r.Lines {
		n += 128 + len(l.Text)
	}
	for _, e := range r.Events {
		n += len(e)
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
