package actors

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
)

// DeadLetter records a message that reached no actor. It names the message's type and does not keep
// the message, which may be a secret or large.
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
	proc  *localProcess
	limit int
	hook  func(DeadLetter) // Hooks.DeadLetter; may be nil

	mu    sync.Mutex
	total uint64
	ring  []DeadLetter
}

// record counts a dead letter, logs it, and calls the hook.
func (d *deadLetters) record(l DeadLetter) {
	d.add(l)
	d.proc.log.Debug("dead letter", slog.String("target", pidString(l.Target)), slog.String("type", l.Type), slog.Any("error", l.Err))
	if d.hook != nil {
		d.proc.recoverHook("DeadLetter hook", func() { d.hook(l) })
	}
}

// recordProtoactors records the dead letters that protoactor makes: messages for ids of this
// process that do not exist. It answers their senders itself.
func (d *deadLetters) recordProtoactors(event any) {
	e, ok := event.(*actor.DeadLetterEvent)
	if !ok {
		return
	}
	d.record(newDeadLetter(e.PID, e.Message, e.Sender, ErrNoActor))
	d.proc.closeHandles(e.Message)
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

// latest returns the total and the latest dead letters, oldest first.
func (d *deadLetters) latest() (total uint64, latest []DeadLetter) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := uint64(len(d.ring))
	latest = make([]DeadLetter, 0, n)
	for i := d.total - n; i < d.total; i++ {
		latest = append(latest, d.ring[i%uint64(d.limit)])
	}
	return d.total, latest
}
