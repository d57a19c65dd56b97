package jobs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"go.opentelemetry.io/otel/trace"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/jobs/internal/rules"
	"github.com/coppice-go/coppice/supervisor"
	"github.com/coppice-go/coppice/tracing"
)

// maxName bounds the keys, tenants and functions of calls, in bytes: the queue keeps them.
const maxName = 1 << 10

// queueActor drives the rules: it turns messages into events and effects into messages. It is an
// actor of the master, and decides nothing. All of its fields belong to the actor's goroutine, but
// for what levels reads: mu is held while the rules change.
type queueActor struct {
	cfg     Config
	mu      sync.Mutex
	rules   *rules.State
	began   time.Time
	rt      *coppice.Runtime
	sys     *actors.System
	self    *actor.PID
	life    int64
	scratch string

	calls   map[string]*pendingCall
	bytes   int                   // of their inputs
	askers  map[string]*actor.PID // of those who wait for a place
	workers map[int]string        // names
	leaving map[int]*actor.PID    // workers that wait until they have left, and whom to tell
	timer   *time.Timer
	at      rules.Time // when the timer fires; 0 = it does not run

	sendQueues map[string]*sendQueue // of other processes, by address; they are monitored

	figures

	death  *actors.Down // of the event Death that is being done
	answer *answer      // of the event Answer that is being done
}

// pendingCall is a call of the rules, with what they do not need.
type pendingCall struct {
	submit *submit
	asker  *actor.PID
	ctx    context.Context // with the caller's span
	span   trace.Span      // it waits in the queue; nil: it does not, or nobody looks
	worker string          // the name of the one that has it

	live    context.Context // ends with the call; nil: its caller wants no reports
	end     context.CancelFunc
	reports atomic.Int32 // that are on their way to the caller

	came, handed time.Time // handed is zero while it does not run
	run, on      int       // its last run, and the ID of the worker
	said         body      // what it has reported last, if that is short
}

// wake is the timer's message.
type wake struct{}

// undelivered says that a run did not reach its worker.
type undelivered struct {
	id     string
	run    int
	worker int
	err    error
}

func newQueue(cfg Config) *queueActor {
	return &queueActor{
		cfg: cfg, calls: map[string]*pendingCall{}, askers: map[string]*actor.PID{}, workers: map[int]string{}, leaving: map[int]*actor.PID{}, sendQueues: map[string]*sendQueue{},
		rules: rules.New(rules.Config{
			PerWorker: cfg.PerWorker, Queue: cfg.Queue, Block: cfg.Block, Once: cfg.Fresh, Quarantine: cfg.Poison.rules(),
		}),
	}
}

// Prompt is for actors.Prompt.
func (q *queueActor) Prompt() {}

// Receive is for protoactor.
func (q *queueActor) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started:
		q.start(ctx)
	case *actor.Stopping:
		if q.timer != nil {
			q.timer.Stop()
		}
		if _, _, _, _, keys := q.levels(); keys+len(q.calls) > 0 {
			q.sys.Logger().Info("jobs: the queue ends, and forgets its calls and quarantined keys", slog.String("pool", q.pool.Value.AsString()), slog.Int("calls", len(q.calls)), slog.Int("keys", keys))
		}
		q.endFigures()
		for _, c := range q.calls {
			c.close()
			c.left(endGone.String(), "the queue has ended")
		}
		if q.scratch != "" {
			_ = os.RemoveAll(q.scratch) // what a worker still uses stays until the system cleans up
		}
	case *submit, reserve, joining, leave, *progress:
		if ctx.Sender() != nil { // otherwise no caller waits for the answer
			q.ask(ctx)
		} else if c, ok := m.(interface{ close() }); ok {
			c.close()
		}
	case cancel:
		delete(q.askers, m.ID)
		q.step(rules.Event{Kind: rules.Cancel, ID: m.ID})
	case *answer:
		if m.Life != q.life {
			m.close()
			return
		}
		q.answer = m
		q.step(rules.Event{Kind: rules.Answer, ID: m.ID, Run: m.Run, Worker: m.Worker, OK: m.Kind == isAnswer})
		q.answer = nil
		m.close() // unless the caller got it
	case *actors.Down:
		q.down(m)
	case undelivered:
		q.undelivered(m)
	case wake:
		q.at = 0
		q.step(rules.Event{Kind: rules.Wake})
	case statusRequest:
		q.respond(ctx, q.status())
	case release:
		q.respond(ctx, q.release(m.Key))
	}
}

// ask handles what is always asked.
func (q *queueActor) ask(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *submit:
		q.submit(ctx, m)
	case reserve:
		q.watch(ctx, m.From)
		q.askers[m.ID] = ctx.Sender()
		q.step(rules.Event{Kind: rules.Reserve, Call: rules.Call{ID: m.ID, From: m.From, Tenant: m.Tenant}})
	case joining:
		q.workers[m.ID] = m.Name
		q.watch(ctx, q.server(m.ID).Address)
		q.respond(ctx, welcome{q.life, q.scratch})
		q.step(rules.Event{Kind: rules.Join, Worker: m.ID})
	case leave:
		if m.Life != q.life || q.workers[m.ID] == "" {
			q.respond(ctx, left{}) // it has nothing of this queue
			return
		}
		q.leaving[m.ID] = ctx.Sender()
		q.step(rules.Event{Kind: rules.Leave, Worker: m.ID})
	case *progress:
		q.report(ctx, m)
	}
}

// server returns the actor of a worker that gets its calls.
func (q *queueActor) server(worker int) *actor.PID {
	return actor.NewPID(childproto.Address(actors.Boot(q.self.Address), worker), serverName)
}

// newLife returns a number that no other queue of the tree has; for tests.
var newLife = func() int64 { return time.Now().UnixNano() }

func (q *queueActor) start(ctx actor.Context) {
	q.rt, q.self, q.began = coppice.Running(), ctx.Self(), time.Now()
	q.sys, q.life = q.rt.System(), newLife()
	q.beginFigures(path.Dir(q.self.Id))
	if !q.cfg.Scratch {
		return
	}
	dir, err := os.MkdirTemp("", "coppice-jobs-")
	if err == nil {
		err = os.Chmod(dir, 0o733|os.ModeSticky) // workers may run as other users
	}
	if err != nil {
		actors.Exit(err)
	}
	q.scratch = dir
}

func (q *queueActor) submit(ctx actor.Context, m *submit) {
	if m.size() > q.cfg.MaxBytes {
		q.refuse(ctx, m, &outcome{Answer: isTooLarge, Number: m.size(), Max: q.cfg.MaxBytes})
		return
	}
	if q.calls[m.ID] != nil { // a process that lies
		m.close()
		q.respond(ctx, &outcome{Answer: isRefusal, Text: "another call has its ID"})
		return
	}
	if q.bytes > 0 && q.bytes+m.size() > q.cfg.QueueBytes {
		q.refuse(ctx, m, &outcome{What: rules.Full, Max: q.cfg.QueueBytes})
		return
	}
	o := m.Options.with(q.cfg.Defaults)
	if o.Idempotent && m.hasOwn() {
		q.refuse(ctx, m, &outcome{Answer: isRefusal, Text: "an input with handles moves to the worker that runs it: the call cannot run again, so it is not idempotent"})
		return
	}
	if n := max(len(o.Key), len(o.Tenant), len(m.Func)); n > maxName {
		q.refuse(ctx, m, &outcome{Answer: isRefusal, Text: fmt.Sprintf("its Key, Tenant or function has a name of %d bytes, and at most %d are kept: give a hash", n, maxName)})
		return
	}
	q.watch(ctx, m.From)
	c := rules.Call{ID: m.ID, From: m.From, Tenant: o.Tenant, Key: o.Key, Timeout: o.Timeout, Grace: o.Grace, Single: m.hasOwn()}
	if o.Idempotent {
		c.Reruns = o.Retries
	}
	m.Options = Options{Key: o.Key, Timeout: o.Timeout}
	p := &pendingCall{submit: m, asker: ctx.Sender(), ctx: actors.Context(ctx), came: time.Now()}
	p.queued()
	if m.Progress != "" {
		p.live, p.end = context.WithCancel(context.Background())
	}
	q.calls[m.ID] = p
	q.bytes += m.size()
	q.step(rules.Event{Kind: rules.Submit, Call: c})
}

// refuse answers a call that is refused at once. What it has is closed, and its place given up.
func (q *queueActor) refuse(ctx actor.Context, m *submit, o *outcome) {
	m.close()
	q.step(rules.Event{Kind: rules.Cancel, ID: m.ID})
	q.respond(ctx, q.count(o))
}

// close is for a call that is over.
func (c *pendingCall) close() {
	c.submit.close()
	if c.end != nil {
		c.end()
	}
}

func (q *queueActor) down(m *actors.Down) {
	address := m.PID.Address
	delete(q.sendQueues, address)
	maps.DeleteFunc(q.askers, func(_ string, asker *actor.PID) bool { return asker.Address == address })
	q.step(rules.Event{Kind: rules.Gone, From: address})
	text, local := actors.LocalID(q.self.Address, address)
	id, err := strconv.Atoi(text)
	if err != nil || !local || q.workers[id] == "" {
		return
	}
	q.death = m
	q.step(rules.Event{Kind: rules.Death, Worker: id, Reason: m.Reason.String(), Blame: ofItself(m.Reason)})
	q.death = nil
	delete(q.workers, id)
	delete(q.leaving, id)
	if q.scratch != "" {
		go func() { // ends by itself; the queue's end removes what it leaves
			dirs, _ := filepath.Glob(filepath.Join(q.scratch, text+"-*"))
			for _, dir := range dirs {
				_ = os.RemoveAll(dir)
			}
		}()
	}
}

// undelivered is about a run that did not reach its worker: because the worker has ended, or reads
// nothing, or since its input cannot be sent to any.
func (q *queueActor) undelivered(m undelivered) {
	ev := rules.Event{Kind: rules.Undelivered, ID: m.id, Run: m.run, Worker: m.worker}
	switch {
	case errors.Is(m.err, actors.ErrDown), errors.Is(m.err, actors.ErrNoActor):
	case errors.Is(m.err, context.DeadlineExceeded), errors.Is(m.err, actors.ErrBusy):
		q.kill(m.worker, coppice.KilledHung)
	default:
		q.answer = &answer{Kind: isRefusal, Text: m.err.Error()}
		ev.Kind = rules.Answer
	}
	q.step(ev)
	q.answer = nil
}

func (q *queueActor) kill(worker int, why coppice.KillReason) {
	if err := q.rt.KillWorker(worker, why); err != nil && !errors.Is(err, coppice.ErrNoChild) {
		q.sys.Logger().Error("jobs: a worker cannot be killed", slog.Int("id", worker), slog.Any("error", err))
	}
}

// ofItself reports whether a worker ended by what ran in it: not because it was asked to, nor
// killed for something else.
func ofItself(r supervisor.Reason) bool {
	if exit, ok := errors.AsType[*coppice.Exit](r.Err()); ok {
		switch exit.Killed {
		case "", coppice.KilledMemory, coppice.KilledHung, coppice.KilledCall:
		default:
			return false
		}
	}
	return !r.IsNormal()
}

// step gives an event to the rules and does what they say.
func (q *queueActor) step(ev rules.Event) {
	lost := q.before(ev)
	q.mu.Lock()
	effects := q.rules.Step(time.Since(q.began), ev)
	q.mu.Unlock()
	q.retries.Add(int64(q.rules.Totals.Reruns - q.retried))
	q.retried = q.rules.Totals.Reruns
	for _, e := range effects {
		switch e.Kind {
		case rules.Hand:
			q.hand(e)
		case rules.Soft:
			q.send(context.Background(), q.server(e.Worker), soft{runKey{q.life, e.ID, e.Run}, e.Outcome == rules.Expired}, nil)
		case rules.Kill:
			q.kill(e.Worker, coppice.KilledCall)
		case rules.Reply:
			q.reply(e)
		case rules.Found:
			if entry, ok := q.entry(e.ID); ok {
				q.sys.Logger().Warn("jobs: a key is quarantined", slog.String("pool", q.pool.Value.AsString()), slog.String("key", e.ID), slog.Int("deaths", entry.Deaths), slog.String("reason", entry.Reason))
			}
		case rules.Left:
			q.send(context.Background(), q.leaving[e.Worker], left{}, nil)
			delete(q.leaving, e.Worker)
		}
	}
	q.again(lost)
	at, ok := q.rules.Next()
	if !ok || q.at != 0 && q.at <= at {
		return
	}
	q.at = max(at, 1)
	delay := max(0, at-time.Since(q.began))
	if q.timer != nil {
		q.timer.Stop()
	}
	sys, self := q.sys, q.self
	q.timer = time.AfterFunc(delay, func() { _ = sys.Send(context.Background(), self, wake{}) }) // on an error the queue has ended
}

func (q *queueActor) hand(e rules.Effect) {
	c := q.calls[e.ID]
	c.worker = q.workers[e.Worker]
	c.begins(q, e)
	if c.span != nil {
		c.left("", "", tracing.KeyHandoffTarget.String(c.worker), tracing.KeyRun.Int(e.Run))
	}
	failed := func(err error) {
		_ = q.sys.Send(context.Background(), q.self, undelivered{e.ID, e.Run, e.Worker, err}) // on an error the queue has ended
	}
	b, err := c.submit.again()
	if err != nil {
		failed(err)
		return
	}
	m := &run{Life: q.life, ID: e.ID, Func: c.submit.Func, Run: e.Run, Scratch: q.scratch, body: b}
	q.send(c.ctx, q.server(e.Worker), m, failed)
}

// reply tells the caller.
func (q *queueActor) reply(e rules.Effect) {
	c := q.calls[e.ID]
	if c == nil || e.Outcome == rules.Place { // to a reserve
		if asker := q.askers[e.ID]; asker != nil {
			delete(q.askers, e.ID)
			q.send(context.Background(), asker, q.count(&outcome{What: e.Outcome, Number: q.cfg.Queue}), nil)
		}
		return
	}
	delete(q.calls, e.ID)
	q.bytes -= c.submit.size()
	c.close()
	o := &outcome{What: e.Outcome, Worker: c.worker, Number: e.Deaths, Timeout: c.submit.Options.Timeout}
	if e.Outcome == rules.Dropped {
		c.refused(q.count(o))
		return
	}
	switch e.Outcome {
	case rules.Full, rules.Wait:
		o.Number = q.cfg.Queue
	case rules.Place, rules.Dropped: // done above
	case rules.Quarantined:
		if entry, ok := q.entry(c.submit.Options.Key); ok {
			o.Number, o.Text, o.Timeout = entry.Deaths, entry.Reason, max(0, entry.Next-time.Since(q.began))
		}
	case rules.Died, rules.Killed:
		if q.death == nil {
			o.Text = "it had ended before the call reached it, and the input's handles with it"
			break
		}
		o.Text = q.death.Reason.String()
		if exit, ok := errors.AsType[*coppice.Exit](q.death.Reason.Err()); ok {
			o.Exit, _ = encoding.Marshal(exit) // but for Lost, which the text has
		}
	case rules.Ended, rules.Expired:
		o.Answer, o.Text, o.Stack, o.body = q.answer.Kind, q.answer.Text, q.answer.Stack, q.answer.body
		q.answer.handles = nil
		if o.size() > q.cfg.MaxBytes {
			o.close()
			o.Answer, o.Number, o.Max, o.body = isTooLargeAnswer, o.size(), q.cfg.MaxBytes, body{}
		}
	}
	c.refused(q.count(o))
	q.send(context.Background(), c.asker, o, nil)
}
