package actorstest

import (
	"runtime"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
)

// Probe is an actor whose messages a test reads. It can act as an actor too: Do runs a function on
// its goroutine, with its context.
type Probe struct {
	PID *actor.PID

	t    testing.TB
	sys  *actors.System
	got  chan Got
	term chan *actor.Terminated
}

// Got is a message that a probe received.
type Got struct {
	Message any
	Sender  *actor.PID
	Header  map[string]string
}

type do struct {
	f    func(actor.Context)
	done chan struct{}
}

// NewProbe spawns a probe in sys. The name may be empty.
func NewProbe(t testing.TB, sys *actors.System, name string) *Probe {
	t.Helper()
	p := &Probe{t: t, sys: sys, got: make(chan Got, 1<<16), term: make(chan *actor.Terminated, 1<<10)}
	pid, err := sys.Spawn(Context(t), name, func() actor.Actor { return actor.ReceiveFunc(p.receive) })
	if err != nil {
		t.Fatal(err)
	}
	p.PID = pid
	return p
}

func (p *Probe) receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *actor.Started, *actor.Stopping, *actor.Stopped:
	case *actor.Terminated:
		p.term <- m
	case do:
		defer close(m.done)
		m.f(ctx)
	default:
		g := Got{Message: m, Sender: ctx.Sender()}
		if h := ctx.MessageHeader(); h != nil && h.Length() > 0 {
			g.Header = h.ToMap()
		}
		p.got <- g
	}
}

// Do runs f on the probe's goroutine and waits for it.
func (p *Probe) Do(f func(ctx actor.Context)) {
	p.t.Helper()
	d := do{f, make(chan struct{})}
	if err := p.sys.Send(Context(p.t), p.PID, d); err != nil {
		p.t.Fatal(err)
	}
	p.wait(d.done)
}

// Next returns the next message.
func (p *Probe) Next() Got {
	p.t.Helper()
	return next(p.t, p.got, "a message")
}

// None fails the test if a message has come. It does not wait for one: ask the probe, or the actor
// that might send, something that is answered later.
func (p *Probe) None() {
	p.t.Helper()
	select {
	case g := <-p.got:
		p.t.Fatalf("probe got %T: %v", g.Message, g.Message)
	default:
	}
}

// Terminated returns the next Terminated.
func (p *Probe) Terminated() *actor.Terminated {
	p.t.Helper()
	return next(p.t, p.term, "Terminated")
}

func (p *Probe) wait(c <-chan struct{}) {
	p.t.Helper()
	next(p.t, c, "an action")
}

// Next returns what comes on c. It fails the test, with all goroutines, when nothing does.
func Next[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	return next(t, c, "a value")
}

func next[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		buf := make([]byte, 1<<20)
		t.Fatalf("waited %v for %s\n%s", Patience, what, buf[:runtime.Stack(buf, true)])
		panic("not reached")
	}
}
