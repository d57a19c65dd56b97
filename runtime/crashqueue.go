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

// close waits for the last reports, at most crashFlush, and returns how many were
// not delivered.
func (c *crashQueue) close() uint64 {
	if c == nil {
		return 0
	}
	return c.q.Close(crashFlush)
}

// crashContext is what a worker had when it ended. It is looked up before other processes hear of
// the end, which changes it.
type crashContext struct {
	held  []ListenerConns
	asked []string
}

// crashContext returns the worker's crashContext. It asks the listener process, so it is looked up
// only for Hooks.Crash.
func (w *poolWorker) crashContext() (b crashContext) {
	if w.driver.crashes == nil || !w.driver.kind.ofConfig {
		return b
	}
	byName := w.driver.children.system.Lookup("").Address
	for _, pid := range w.driver.children.system.AskedAt(w.address()) {
		name := pid.Id
		if pid.Address != byName {
			name = pid.Address + "/" + name
		}
		b.asked = append(b.asked, name)
	}
	slices.Sort(b.asked)
	ctx, cancel := context.WithTimeout(context.Background(), heldTimeout)
	defer cancel()
	stats, err := w.driver.children.sockets.Stats(ctx)
	if err != nil {
		return b // there is no listener process, or it is busy
	}
	for _, l := range stats {
		for _, at := range l.Workers {
			if open := at.Counts.Open(); at.Worker.ID == uint64(w.hello.ID) && open+at.Counts.Offered > 0 {
				b.held = append(b.held, ListenerConns{l.Name, open, at.Counts.Offered})
			}
		}
	}
	return b
}

// reportCrash reports the end of the worker if it is a crash.
func (w *poolWorker) reportCrash(b crashContext, spans []trace.SpanContext) {
	if w.driver.crashes == nil || !isCrash(w.reason, w.exit) {
		return
	}
	at := w.assigned.Load()
	r := CrashReport{
		Name: at.name, Role: string(w.hello.Role), ID: w.hello.ID, Slot: at.slot,
		Incarnation: at.incarnation, Generation: w.hello.Generation,
		Ready: isClosed(w.ready), Reason: w.reason, Exit: w.exit, Conns: b.held, Asked: b.asked,
	}
	for _, s := range spans {
		if id := s.TraceID().String(); !slices.Contains(r.Traces, id) {
			r.Traces = append(r.Traces, id)
		}
	}
	w.backend.fillReport(&r)
	w.driver.crashes.report(r)
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
