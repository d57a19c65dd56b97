package supervisor

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"
)

// killGrace is how long a function may take to end when it is killed without having been
// asked to stop: the end of its context is all that it sees.
const killGrace = 100 * time.Millisecond

// Func makes a function a child. It is up as soon as its goroutine runs; it
// must return soon after ctx has ended. So suture's Serve(ctx) error fits.
//
//   - It returns nil: Normal. Note that a permanent child is then restarted.
//   - It returns an error: Error, or the reason given to [Exit].
//   - It returns nil or ctx.Err() after a stop request: Shutdown.
//   - It panics: Panic, with the stack. runtime.Goexit counts as an error.
//
// A goroutine cannot be killed. A function that has not returned by its
// shutdown time is abandoned: its reason is Killed, it is counted as leaked
// until it does return or its supervisor ends, and [Spec.Leak] says what follows.
func Func(run func(ctx context.Context) error) Starter {
	return &funcStarter{run: run}
}

type funcStarter struct {
	run func(ctx context.Context) error
}

func (f *funcStarter) Start(ctx context.Context, _ Incarnation) (Instance, error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	i := &funcInstance{cancel: cancel, done: make(chan struct{})}
	// Owned by the supervisor through i; ends when run returns, which the
	// end of ctx asks for. If run does not, Kill abandons the goroutine.
	go i.serve(ctx, f.run)
	return i, nil
}

// funcInstance is one run of a function.
type funcInstance struct {
	base
	cancel context.CancelFunc
	done   chan struct{}

	mu            sync.Mutex
	stopRequested bool // Stop or Kill was called
	ended         bool // done is closed, reason is set
	reason        Reason
	notify        func()
	leaked        chan struct{} // not nil: abandoned; closed when run has returned
	deadline      *time.Timer   // Kill's grace
}

func (i *funcInstance) serve(ctx context.Context, run func(context.Context) error) {
	r, returned := Reason{Kind: Error, Cause: errGoexit}, false
	defer func() {
		if !returned {
			if v := recover(); v != nil {
				r = Reason{Kind: Panic, Value: v, Stack: string(debug.Stack())}
			}
		}
		i.cancel()
		i.returned(r)
	}()
	r = ReasonOf(run(ctx))
	returned = true
}

var errGoexit = errors.New("runtime.Goexit was called")

// returned is the goroutine's last call.
func (i *funcInstance) returned(r Reason) {
	i.mu.Lock()
	if i.leaked != nil {
		close(i.leaked)
		i.mu.Unlock()
		return
	}
	if i.stopRequested && (r.Kind == Normal || r.Kind == Error && errors.Is(r.Cause, context.Canceled)) {
		r = Reason{Kind: Shutdown}
	}
	if i.deadline != nil {
		i.deadline.Stop()
		r = Reason{Kind: Killed}
	}
	i.end(r)
}

// end publishes the reason. It is entered with mu held and releases it.
func (i *funcInstance) end(r Reason) {
	i.reason, i.ended = r, true
	notify := i.notify
	close(i.done)
	i.mu.Unlock()
	if notify != nil {
		notify()
	}
}

func (i *funcInstance) Done() <-chan struct{} { return i.done }

func (i *funcInstance) Reason() Reason {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.reason
}

func (i *funcInstance) Stop() {
	i.mu.Lock()
	i.stopRequested = true
	i.mu.Unlock()
	i.cancel()
}

// Kill abandons a function that was asked to stop before. One that was not has killGrace to end.
func (i *funcInstance) Kill() {
	i.mu.Lock()
	switch {
	case i.ended || i.deadline != nil:
		i.mu.Unlock()
	case i.stopRequested:
		i.leaked = make(chan struct{})
		i.end(Reason{Kind: Killed})
	default:
		i.stopRequested = true
		i.deadline = time.AfterFunc(killGrace, i.abandon)
		i.mu.Unlock()
		i.cancel()
	}
}

func (i *funcInstance) abandon() {
	i.mu.Lock()
	if i.ended {
		i.mu.Unlock()
		return
	}
	i.leaked = make(chan struct{})
	i.end(Reason{Kind: Killed})
}

// Leaked returns nil unless the goroutine was abandoned and still runs.
func (i *funcInstance) Leaked() <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.leaked
}

func (i *funcInstance) onDone(f func()) {
	i.mu.Lock()
	if !i.ended {
		i.notify = f
		i.mu.Unlock()
		return
	}
	i.mu.Unlock()
	f()
}
