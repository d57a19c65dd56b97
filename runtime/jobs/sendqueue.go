package jobs

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/actors"
)

// What the master keeps for a process that does not read. Beyond it, and after replyWait in which
// the process has taken nothing, messages are dropped: what they answer fails in the process.
const (
	replyWait  = 30 * time.Second
	maxUnread  = 256 << 20 // bytes, of which a message counts these at least:
	costOfOne  = 1 << 10
	costOfFile = 64 << 10 // or these, if it has descriptors
)

// sendQueue has the queue's messages for one other process, which go in order and do not hold up
// the queue. Safe for concurrent use.
type sendQueue struct {
	sender // the System

	mu      sync.Mutex
	waiting []parcel
	unread  int  // the costs of what has not been sent
	sending bool // by a goroutine
}

type sender interface {
	Send(ctx context.Context, to *actor.PID, m any) error
	TrySend(ctx context.Context, to *actor.PID, m any) error
}

// parcel is a message in a sendQueue.
type parcel struct {
	span   trace.Span // nil = none
	to     *actor.PID
	m      any
	failed func(error) // may be called by any goroutine; nil = it does not matter
}

// cost returns what p counts in a sendQueue, and whether it has descriptors.
func (p parcel) cost() (n int, files bool) {
	b, _ := p.m.(interface{ unread() (int, bool) })
	if b == nil {
		return costOfOne, false
	}
	return b.unread()
}

func (b *body) unread() (n int, files bool) {
	if len(b.handles) > 0 {
		return max(costOfFile, b.size()), true
	}
	return costOfOne + len(b.Bytes), false
}

// unread of a run has not its bytes: Config.QueueBytes bounds those.
func (m *run) unread() (n int, files bool) { return costOfOne, len(m.handles) > 0 }

// atOnce is the context of what does not wait.
var atOnce = func() context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(context.DeadlineExceeded)
	return ctx
}()

// put has p sent. It does not wait.
func (b *sendQueue) put(p parcel) {
	cost, files := p.cost()
	b.mu.Lock()
	idle, full := !b.sending, b.unread > maxUnread
	b.mu.Unlock()
	switch {
	case full:
		p.over(b.Send(p.under(atOnce), p.to, p.m))
		return
	case idle && !files:
		if err := b.TrySend(p.under(context.Background()), p.to, p.m); !errors.Is(err, actors.ErrBusy) {
			p.over(err)
			return
		}
	}
	b.mu.Lock()
	b.waiting = append(b.waiting, p)
	b.unread += cost
	idle = !b.sending
	b.sending = true
	b.mu.Unlock()
	if idle {
		go b.run() // ends when all is sent, or dropped
	}
}

func (b *sendQueue) run() {
	ctx, cancel := context.WithCancelCause(context.Background())
	patience := time.AfterFunc(replyWait, func() { cancel(context.DeadlineExceeded) })
	defer patience.Stop()
	for {
		b.mu.Lock()
		all := b.waiting
		b.waiting = nil
		b.sending = len(all) > 0
		b.mu.Unlock()
		if len(all) == 0 {
			return
		}
		for i, p := range all {
			all[i] = parcel{}
			cost, _ := p.cost()
			p.over(b.Send(p.under(ctx), p.to, p.m))
			patience.Reset(replyWait)
			b.mu.Lock()
			b.unread -= cost
			b.mu.Unlock()
		}
	}
}

// under returns ctx with the span of p.
func (p parcel) under(ctx context.Context) context.Context {
	if p.span == nil {
		return ctx
	}
	return trace.ContextWithSpan(ctx, p.span)
}

// over is for a parcel that was sent, or could not be.
func (p parcel) over(err error) {
	if err != nil && p.failed != nil {
		p.failed(err)
	}
}

// send sends m with the span of ctx, and does not wait.
func (q *queueActor) send(ctx context.Context, pid *actor.PID, m any, failed func(error)) {
	p := parcel{to: pid, m: m, failed: failed}
	if s := trace.SpanFromContext(ctx); s.SpanContext().IsValid() {
		p.span = s
	}
	out := q.sendQueues[pid.Address]
	switch {
	case out != nil:
		out.put(p)
	case pid.Address == q.self.Address:
		p.over(q.sys.Send(p.under(context.Background()), pid, m)) // its mailboxes have no bound
	default:
		(&sendQueue{sender: q.sys}).put(p) // the process has ended
	}
}

// respond answers the message that ctx has.
func (q *queueActor) respond(ctx actor.Context, m any) {
	if asker := ctx.Sender(); asker != nil {
		q.watch(ctx, asker.Address)
		q.send(context.Background(), asker, m, nil)
	}
}

// watch makes the sendQueue of a process, and has the queue told when it ends. The master's end is
// the queue's own.
func (q *queueActor) watch(ctx actor.Context, address string) {
	if address != q.self.Address && q.sendQueues[address] == nil {
		q.sendQueues[address] = &sendQueue{sender: q.sys}
		q.sys.MonitorFrom(ctx, actors.ProcessPID(address))
	}
}

// maxReports bounds what a run may report at once: Report waits for each before the next.
const maxReports = 8

// report takes a report to the caller, and answers it when the caller's function has returned.
func (q *queueActor) report(ctx actor.Context, m *progress) {
	c := q.calls[m.ID]
	if c != nil && m.Life == q.life && m.Run == c.run && m.size() <= maxSaid {
		c.said = body{Enc: m.Enc, Bytes: m.Bytes}
	}
	if c == nil || c.live == nil || m.Life != q.life || m.Run != c.run || m.size() > q.cfg.MaxBytes || c.reports.Load() >= maxReports {
		m.close()
		q.respond(ctx, true)
		return
	}
	asker, sys, to := ctx.Sender(), q.sys, actor.NewPID(c.submit.From, c.submit.Progress)
	q.watch(ctx, asker.Address)
	out := q.sendQueues[asker.Address]
	if out == nil { // it would be of this process, where no run is
		m.close()
		return
	}
	c.reports.Add(1)
	go func() { // ends with the caller's function, the call, or the caller's process
		_, _ = actors.Ask[bool](c.live, sys, to, m) // a report that cannot arrive is dropped
		c.reports.Add(-1)
		out.put(parcel{to: asker, m: true})
	}()
}
