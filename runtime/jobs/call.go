package jobs

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs/internal/rules"
)

// Call has a worker of a pool run a function, and returns its answer, or one of the errors of this
// package. c is the Runtime in the master, the Worker in a worker.
//
// target is the path of the pool and the name of the function, "images/resize"; a name without a
// slash, "resize", is both. in is not used any more when Call has returned, but a []byte of the
// master if ctx has ended: until the call is over. Its handles move. The end of ctx ends the wait
// at once, and the call soon: see [CanceledError].
//
//	thumb, err := jobs.Call[Thumb](ctx, w, "resize", image)
func Call[Out, In any](ctx context.Context, c Caller, target string, in In) (Out, error) {
	return call[Out](ctx, c, target, in, Options{})
}

// Start begins a call and does not wait for it, nor for room in the queue. in is the call's until
// Done. The call ends with ctx, as in [Call].
//
//	p := jobs.Start[Thumb](ctx, w, "resize", image, jobs.Options{Key: image.Hash, Timeout: time.Second})
//	thumb, err := p.Wait()
func Start[Out, In any](ctx context.Context, c Caller, target string, in In, o Options) *Pending[Out] {
	p := &Pending[Out]{done: make(chan struct{})}
	go func() { // ends with the call
		defer close(p.done)
		p.out, p.err = call[Out](ctx, c, target, in, o)
	}()
	return p
}

// A Pending is a call that was started. Its methods may be called by any goroutine.
type Pending[Out any] struct {
	done chan struct{}
	out  Out // before done is closed: of the goroutine of Start
	err  error
}

// Done returns a channel that is closed when the call has ended.
func (p *Pending[Out]) Done() <-chan struct{} { return p.done }

// Wait waits until the call has ended and returns what came of it.
func (p *Pending[Out]) Wait() (Out, error) {
	<-p.done
	return p.out, p.err
}

// A ProgressFunc gets what a function reports; made by [OnProgress].
type ProgressFunc func(b *body)

// OnProgress returns the ProgressFunc that calls f with each report of the type T; others are
// dropped. f runs on one goroutine, report after report, before the call has returned its answer;
// [Report] waits for it. If the call ends without an answer, as with its context, f may still run.
func OnProgress[T any](f func(T)) ProgressFunc {
	return func(b *body) {
		if v, err := decode[T](b); err == nil {
			f(v)
		}
	}
}

// progressActor gets the progress of one call.
type progressActor struct{ f ProgressFunc }

// Receive is for protoactor.
func (a progressActor) Receive(ctx actor.Context) {
	if m, ok := ctx.Message().(*progress); ok {
		a.f(&m.body)
		ctx.Respond(true)
	}
}

// numbers counts the calls of this process.
var numbers atomic.Uint64

// call is one call, from its caller's side.
func call[Out, In any](ctx context.Context, c Caller, target string, in In, o Options) (out Out, err error) {
	i := strings.LastIndexByte(target, '/')
	pool, name := target, target[i+1:]
	if i > 0 {
		pool = target[:i]
	}
	ctx, span := startCall(ctx, pool, name, o.Key)
	defer func() { endCall(span, err) }()
	b, err := encode(in)
	if err != nil {
		return out, &RefusedError{err.Error()}
	}
	defer b.close()
	if ctx.Err() != nil {
		return out, &CanceledError{context.Cause(ctx)}
	}
	sys := c.System()
	m := &submit{
		ID: sys.Address() + "/" + strconv.FormatUint(numbers.Add(1), 36), From: sys.Address(), Func: name, Options: o,
	}
	s := &caller{ctx: ctx, sys: sys, queue: c.Lookup(pool + "/" + queueName), pool: pool, m: m}
	if o.Progress != nil {
		pid, err := sys.Spawn(ctx, "", func() actor.Actor { return progressActor{o.Progress} })
		if err != nil {
			return out, s.failed(err)
		}
		defer func() { _ = sys.Stop(atOnce, pid) }() // Report has waited for what it does
		m.Progress = pid.Id
	}
	answer, err := s.ask(&b)
	if err != nil {
		return out, err
	}
	if err := answer.err(o); err != nil {
		answer.close()
		return out, err
	}
	if out, err = decode[Out](&answer.body); err != nil {
		return out, &RefusedError{"the answer: " + err.Error()}
	}
	return out, nil
}

// caller asks the queue for one call.
type caller struct {
	ctx   context.Context
	sys   *actors.System
	queue *actor.PID
	pool  string
	m     *submit
}

// ask submits the call, if need be after it has waited for a place in the queue.
func (s *caller) ask(b *body) (*outcome, error) {
	place := b.hasOwn() // its handles go once
	submitted := false
	defer func() {
		if place && !submitted {
			s.cancel()
		}
	}()
	for {
		if place {
			o, err := actors.Ask[*outcome](s.ctx, s.sys, s.queue, reserve{s.m.ID, s.m.From, s.m.Options.Tenant})
			if err != nil {
				return nil, s.failed(err)
			}
			if o.What != rules.Place {
				return o, nil
			}
		}
		m := *s.m
		var err error
		if m.body, err = b.again(); err != nil {
			return nil, &RefusedError{err.Error()}
		}
		o, err := actors.Ask[*outcome](s.ctx, s.sys, s.queue, &m)
		if err != nil {
			return nil, s.failed(err)
		}
		submitted = true
		if o.What != rules.Wait {
			return o, nil
		}
		place = true
	}
}

// failed returns the error of a call that was not answered by the queue.
func (s *caller) failed(err error) error {
	switch {
	case s.ctx.Err() != nil:
		s.cancel()
		return &CanceledError{context.Cause(s.ctx)}
	case errors.Is(err, actors.ErrMalformed), errors.Is(err, actors.ErrType):
		return &RefusedError{err.Error()}
	case errors.Is(err, actors.ErrFull), errors.Is(err, actors.ErrBusy), errors.Is(err, actors.ErrTooMany):
		return &FullError{Err: err}
	}
	return &GoneError{s.pool, err}
}

// cancel tells the queue that the call, or its place, is not wanted any more. It does not wait.
func (s *caller) cancel() {
	go func() { // ends when the master reads, or replyWait is over
		ctx, stop := context.WithTimeout(context.Background(), replyWait)
		defer stop()
		_ = s.sys.Send(ctx, s.queue, cancel{s.m.ID}) // on an error the queue has ended, or runs the call for nobody
	}()
}

// err returns what became of the call, if that is not an answer.
func (o *outcome) err(opts Options) error {
	switch o.What {
	case rules.Full, rules.Wait, rules.Place, rules.Dropped:
		if o.Max > 0 {
			return &FullError{Err: fmt.Errorf("the inputs of calls would have more than %d bytes together", o.Max)}
		}
		return &FullError{Bound: o.Number}
	case rules.Quarantined:
		return &QuarantinedError{opts.Key, o.Number, o.Text, o.Timeout}
	case rules.Expired:
		return &DeadlineError{Timeout: o.Timeout, Text: o.Text}
	case rules.Killed:
		return &DeadlineError{Timeout: o.Timeout, Killed: true, Text: o.Text}
	case rules.Died:
		e := &DiedError{Worker: o.Worker, Reason: o.Text, Deaths: o.Number}
		if exit := new(coppice.Exit); len(o.Exit) > 0 && decoding.Unmarshal(o.Exit, exit) == nil {
			e.Exit = exit
		}
		return e
	case rules.Ended:
	}
	switch o.Answer {
	case isError:
		return &FuncError{o.Text}
	case isPanic:
		return &PanicError{o.Text, o.Stack}
	case isRefusal:
		return &RefusedError{o.Text}
	case isTooLarge, isTooLargeAnswer:
		return &TooLargeError{o.Answer == isTooLargeAnswer, o.Number, o.Max}
	case isAnswer:
		return nil
	}
	return errors.New("jobs: an outcome of another version")
}
