package actors_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
)

// A probe is an actor whose messages a test reads. It can act as an actor too: Do runs a function
// on its goroutine, with its context.
type probe struct {
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

// newProbe spawns a probe in sys. The name may be empty.
func newProbe(t testing.TB, sys *actors.System, name string) *probe {
	t.Helper()
	p := &probe{t: t, sys: sys, got: make(chan Got, 1<<16), term: make(chan *actor.Terminated, 1<<10)}
	pid, err := sys.Spawn(testContext(t), name, func() actor.Actor { return actor.ReceiveFunc(p.receive) })
	if err != nil {
		t.Fatal(err)
	}
	p.PID = pid
	return p
}

func (p *probe) receive(ctx actor.Context) {
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
func (p *probe) Do(f func(ctx actor.Context)) {
	p.t.Helper()
	d := do{f, make(chan struct{})}
	if err := p.sys.Send(testContext(p.t), p.PID, d); err != nil {
		p.t.Fatal(err)
	}
	next(p.t, d.done)
}

// Next returns the next message.
func (p *probe) Next() Got {
	p.t.Helper()
	return next(p.t, p.got)
}

// Terminated returns the next Terminated.
func (p *probe) Terminated() *actor.Terminated {
	p.t.Helper()
	return next(p.t, p.term)
}

// next returns what comes on c. It fails the test, with all goroutines, when nothing does.
func next[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case v := <-c:
		return v
	case <-timer.C:
		buf := make([]byte, 1<<20)
		t.Fatalf("waited %v\n%s", patience, buf[:runtime.Stack(buf, true)])
		panic("not reached")
	}
}
