package actors

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// DeadLetter records a message that reached nobody. It names the message's type
// and does not keep the message, which may be a secret or large.
type DeadLetter struct {
	Time   time.Time
	Target *actor.PID // nil: it had none
	Sender *actor.PID // nil: it had none
	Type   string
	Err    error // why: ErrNoActor, ErrDown, ErrFull, ErrType ...
}

func newDeadLetter(target *actor.PID, msg any, sender *actor.PID, err error) DeadLetter {
	return DeadLetter{Time: time.Now(), Target: target, Sender: sender, Type: fmt.Sprintf("%T", msg), Err: err}
}

// deadLetters counts dead letters and keeps the latest.
type deadLetters struct {
	mu    sync.Mutex
	limit int
	total uint64
	ring  []DeadLetter
}

func (d *deadLetters) add(l DeadLetter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.ring) < d.limit {
		d.ring = append(d.ring, l)
	} else {
		d.ring[d.total%uint64(d.limit)] = l
	}
	d.total++
}

func (d *deadLetters) count() uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.total
}

// DeadLetters returns how many messages reached nobody since the system was
// made, and the latest of them, oldest first.
func (s *System) DeadLetters() (total uint64, latest []DeadLetter) {
	d := &s.dead
	d.mu.Lock()
	defer d.mu.Unlock()
	n := uint64(len(d.ring))
	latest = make([]DeadLetter, 0, n)
	for i := d.total - n; i < d.total; i++ {
		latest = append(latest, d.ring[i%uint64(d.limit)])
	}
	return d.total, latest
}

// undeliverable makes a dead letter: it is counted, its handles are closed, and
// its sender is told: an ask fails with err, any other gets protoactor's
// DeadLetterResponse, as it would for an actor in its own process. When the message
// is the answer to an ask, the ask fails.
func (s *System) undeliverable(target *actor.PID, msg any, sender *actor.PID, err error) {
	s.record(newDeadLetter(target, msg, sender, err))
	s.closeHandles(msg)
	if target != nil && target.Id == askID {
		s.failAsk(target, err) // an answer that can not get there
	}
	if sender == nil {
		return
	}
	if sender.Id == askID {
		s.failAsk(sender, err)
		return
	}
	switch msg.(type) {
	case *actor.DeadLetterResponse: // no answer to an answer
	default:
		s.notify(sender, &actor.DeadLetterResponse{Target: target})
	}
}

func (s *System) record(d DeadLetter) {
	s.dead.add(d)
	s.log.Debug("dead letter", slog.String("target", pidString(d.Target)), slog.String("type", d.Type), slog.Any("error", d.Err))
	if s.cfg.Hooks.DeadLetter != nil {
		s.recoverHook("DeadLetter hook", func() { s.cfg.Hooks.DeadLetter(d) })
	}
}

// protoactorDeadLetter hears of the dead letters that protoactor makes: messages
// for ids of this process that do not exist. It answers their senders itself.
func (s *System) protoactorDeadLetter(event any) {
	e, ok := event.(*actor.DeadLetterEvent)
	if !ok {
		return
	}
	s.record(newDeadLetter(e.PID, e.Message, e.Sender, ErrNoActor))
	s.closeHandles(e.Message)
}

// recoverHook runs a user's callback and logs its panic.
func (s *System) recoverHook(what string, f func()) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("panic in "+what, slog.Any("panic", v))
		}
	}()
	f()
}
