package actors

import (
	"context"
	"fmt"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/supervisor"
)

// Ask sends msg to pid and returns its answer, which the actor gives with
// ctx.Respond. ctx bounds the wait and nothing else; without a deadline it can
// be for ever, if an actor lives and does not answer.
//
// It fails before that when there is nobody to answer: with [ErrNoActor] when
// the actor does not exist, with a [DownError] when it or its process ends, also
// after it has taken the message, with [ErrType] or [ErrMalformed] when
// the message or the answer can not cross, with [ErrFull] or [ErrBusy] at a bound.
// An actor that passed the message on (ctx.Forward) within its process fails the ask by
// ending as the one that has it then does; one that passed a question of another process
// on to a third fails it no more, nor does the end of who has it then.
//
// An actor that asks itself waits for itself, until ctx ends.
func (s *System) Ask(ctx context.Context, pid *actor.PID, msg any) (any, error) {
	v, err := s.ask(ctx, pid, msg)
	if err != nil {
		return nil, fmt.Errorf("actors: ask %s: %w", pidString(pid), err)
	}
	return v, nil
}

func (s *System) ask(ctx context.Context, pid *actor.PID, msg any) (any, error) {
	if msg == nil {
		return nil, errNil
	}
	if s.closed.Load() {
		s.undeliverable(pid, msg, nil, ErrClosed)
		return nil, ErrClosed
	}
	a := s.asks.begin(pid)
	err := s.deliver(ctx, pid, &actor.MessageEnvelope{
		Header:  traceHeader(ctx),
		Message: msg,
		Sender:  s.askPID(a.id),
	})
	if err != nil && !isChannelLost(err) { // lost: Detach will say why
		if s.asks.end(a.id) != nil {
			s.undeliverable(pid, msg, nil, err)
			return nil, err
		}
	}
	return s.await(ctx, a)
}

func (s *System) askPID(id uint32) *actor.PID {
	return &actor.PID{Address: s.cfg.Address, Id: askID, RequestId: id}
}

// await waits for the outcome of a.
func (s *System) await(ctx context.Context, a *pendingAsk) (any, error) {
	select {
	case r := <-a.done:
		return r.value, r.err
	case <-ctx.Done():
	}
	if s.asks.end(a.id) == nil { // the outcome came in the same moment
		r := <-a.done
		return r.value, r.err
	}
	s.asks.mu.Lock()
	to := a.to
	s.asks.mu.Unlock()
	if to != "" { // another process has it, and may forget it
		_ = s.postTo(ProcessPID(to), wire.KindAskEnd, func(b []byte) []byte {
			return wire.AppendPID(b, s.askPID(a.id))
		})
	}
	return nil, context.Cause(ctx)
}

// pendingAsk is a question that waits for its answer.
type pendingAsk struct {
	id     uint32
	target *actor.PID
	done   chan askResult // 1 entry; written by who took the ask out of the table

	// Guarded by asks.mu; written before the message leaves.
	to   string // the process that has the message
	link *peer  // on which it went; nil: none
}

type askResult struct {
	value any
	err   error
}

// askTable are the questions of this process. Who takes one out answers it: so each
// has one outcome.
type askTable struct {
	mu   sync.Mutex
	last uint32
	open map[uint32]*pendingAsk
}

func (t *askTable) begin(target *actor.PID) *pendingAsk {
	a := &pendingAsk{target: target, done: make(chan askResult, 1)}
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		t.last++
		if _, taken := t.open[t.last]; !taken && t.last != 0 {
			break
		}
	}
	a.id = t.last
	t.open[a.id] = a
	return a
}

// end takes the ask out; nil when it is not there (any more).
func (t *askTable) end(id uint32) *pendingAsk {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := t.open[id]
	if a != nil {
		t.removeLocked(a)
	}
	return a
}

func (t *askTable) removeLocked(a *pendingAsk) {
	delete(t.open, a.id)
	if a.link != nil {
		a.link.asksWaiting.Add(-1)
		a.link = nil
	}
}

// target returns who was asked; nil when the ask has ended.
func (t *askTable) target(id uint32) *actor.PID {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.open[id]; a != nil {
		return a.target
	}
	return nil
}

func (t *askTable) has(id uint32) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.open[id]
	return ok
}

func (t *askTable) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.open)
}

// route notes where an ask goes. It comes before the message is sent, so that the
// end of that process finds it.
func (t *askTable) route(id uint32, to string, p *peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if a := t.open[id]; a != nil {
		if a.to = to; p != nil && a.link == nil {
			a.link = p
			p.asksWaiting.Add(1)
		}
	}
}

func (t *askTable) finish(id uint32, value any, err error) bool {
	a := t.end(id)
	if a == nil {
		return false
	}
	a.done <- askResult{value, err}
	return true
}

// failAt fails the asks that are at a process.
func (t *askTable) failAt(address string, reason supervisor.Reason) {
	t.mu.Lock()
	var failed []*pendingAsk
	for _, a := range t.open {
		if a.to == address {
			t.removeLocked(a)
			failed = append(failed, a)
		}
	}
	t.mu.Unlock()
	for _, a := range failed {
		a.done <- askResult{err: downError(a.target, reason)}
	}
}

// AskedAt returns whom the asks of this process wait for, of those that are at the
// process with that address: what it was asked when it died, before Detach.
func (s *System) AskedAt(address string) []*actor.PID {
	s.asks.mu.Lock()
	defer s.asks.mu.Unlock()
	var pids []*actor.PID
	for _, a := range s.asks.open {
		if a.to == address {
			pids = append(pids, a.target)
		}
	}
	return pids
}

func (t *askTable) failAll(err error) {
	t.mu.Lock()
	open := t.open
	t.open = make(map[uint32]*pendingAsk)
	t.mu.Unlock()
	for _, a := range open {
		a.done <- askResult{err: err}
	}
}

// askReplies is the Process behind the sender PIDs of asks.
type askReplies struct{ s *System }

var _ actor.Process = askReplies{}

func (p askReplies) SendUserMessage(pid *actor.PID, message any) { p.s.answer(pid, message) }
func (p askReplies) SendSystemMessage(*actor.PID, any)           {}
func (p askReplies) Stop(*actor.PID)                             {}

// answer takes an answer to the ask that waits for it. One that comes too late
// is a dead letter.
func (s *System) answer(pid *actor.PID, message any) {
	msg := actor.UnwrapEnvelopeMessage(message)
	if _, ok := msg.(*actor.DeadLetterResponse); ok {
		s.asks.finish(pid.RequestId, nil, ErrNoActor)
		return
	}
	if !s.asks.finish(pid.RequestId, msg, nil) {
		s.undeliverable(pid, msg, nil, ErrNoActor)
	}
}

// askOpen says whether the ask behind pid, of this or another process, may
// still want an answer.
func (s *System) askOpen(pid *actor.PID) bool {
	if s.local(pid) {
		return s.asks.has(pid.RequestId)
	}
	return s.inbound.hasAsk(pid)
}

// failAsk answers the ask behind pid with err.
func (s *System) failAsk(pid *actor.PID, err error) {
	if s.local(pid) {
		s.asks.finish(pid.RequestId, nil, err)
		return
	}
	s.inbound.endAsk(pid)
	_ = s.postTo(pid, wire.KindFailed, func(b []byte) []byte { return appendError(b, err) })
}
