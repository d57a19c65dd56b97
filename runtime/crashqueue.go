package coppice

import (
	"context"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/runtime/internal/process"
	"github.com/coppice-go/coppice/runtime/internal/queue"
)

const (
	// maxCrashes is how many reports wait for Hooks.Crash.
	maxCrashes = 64

	// heldTimeout bounds how long the end of a worker waits for what the listener
	// process knows of it.
	heldTimeout = 100 * time.Millisecond

	// crashFlush bounds how long the end of the tree waits for the last reports.
	crashFlush = time.Second
)

// crashQueue brings crash reports to Hooks.Crash, which may block.
type crashQueue struct{ q *queue.Queue[CrashReport] }

// newCrashQueue returns nil when nobody wants to know.
func newCrashQueue(to func(CrashReport)) *crashQueue {
	if to == nil {
		return nil
	}
	return &crashQueue{queue.New(queue.Config[CrashReport]{Take: func(r CrashReport) error { to(r); return nil }, Max: maxCrashes + 1})} // and the one that the hook has
}

func (c *crashQueue) report(r CrashReport) { c.q.Put(r) }

// close waits for the last reports, at most crashFlush, and returns how many were
// not delivered.
func (c *crashQueue) close() uint64 {
	if c == nil {
		return 0
	}
	return c.q.Close(crashFlush)
}

// crashContext are what a child had when it ended. They are looked up before the
// others are told of its end, which changes them.
type crashContext struct {
	held  []ListenerConns
	asked []string
}

// crashContext are asked for only when somebody wants to know: it costs a question
// to the listener process.
func (p *poolWorker) crashContext() (b crashContext) {
	if p.driver.crashes == nil || !p.driver.kind.ofConfig {
		return b
	}
	byName := p.driver.children.system.Lookup("").Address
	for _, pid := range p.driver.children.system.AskedAt(p.address()) {
		name := pid.Id
		if pid.Address != byName {
			name = pid.Address + "/" + name
		}
		b.asked = append(b.asked, name)
	}
	slices.Sort(b.asked)
	ctx, cancel := context.WithTimeout(context.Background(), heldTimeout)
	defer cancel()
	stats, err := p.driver.children.sockets.Stats(ctx)
	if err != nil {
		return b // there is no listener process just now, or it is busy
	}
	for _, l := range stats {
		for _, w := range l.Workers {
			if open := w.Counts.Open(); w.Worker.ID == uint64(p.hello.ID) && open+w.Counts.Offered > 0 {
				b.held = append(b.held, ListenerConns{l.Name, open, w.Counts.Offered})
			}
		}
	}
	return b
}

// reportCrash reports the end of p if it is one to report.
func (p *poolWorker) reportCrash(b crashContext, spans []trace.SpanContext) {
	if p.driver.crashes == nil || !isCrash(p.reason, p.exit) {
		return
	}
	at := p.assigned.Load()
	r := CrashReport{
		Name: at.name, Role: string(p.hello.Role), ID: p.hello.ID, Slot: at.slot,
		Incarnation: at.incarnation, Generation: p.hello.Generation,
		Ready: isClosed(p.ready), Reason: p.reason, Exit: p.exit, Conns: b.held, Asked: b.asked,
	}
	for _, s := range spans {
		if id := s.TraceID().String(); !slices.Contains(r.Traces, id) {
			r.Traces = append(r.Traces, id)
		}
	}
	p.backend.fillReport(&r)
	p.driver.crashes.report(r)
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
