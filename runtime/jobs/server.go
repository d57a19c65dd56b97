package jobs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	goruntime "runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/supervisor"
)

// serverName is the actor of a worker that gets its calls.
const serverName = "jobs"

func serverPID(worker int) *actor.PID { return actor.NewPID(strconv.Itoa(worker), serverName) }

// helloPause is between two tries of a worker to reach a queue that is being restarted.
const helloPause = 20 * time.Millisecond

// server is a pool's worker function: it runs the calls that the queue hands over.
type server struct {
	cfg       Config
	functions map[string]Function
}

func newServer(cfg Config, functions map[string]Function) *server { return &server{cfg, functions} }

// runs are the calls of one worker. Safe for concurrent use.
type runs struct {
	*server
	w     *coppice.Worker
	queue *actor.PID

	mu      sync.Mutex
	welcome welcome
	live    map[soft]context.CancelCauseFunc
	early   map[soft]bool // softs that came before their runs, which may be on their way
	wait    sync.WaitGroup
	once    chan struct{} // closed when a Fresh worker has had its call
}

// Why the context of a call ends. context.Cause tells.
var (
	errOver     = errors.New("jobs: the time of the call is over, or its caller has gone")
	errQueue    = errors.New("jobs: the queue of the pool has ended")
	errDraining = errors.New("jobs: the worker has to end")
)

// serve is the worker function.
func (s *server) serve(ctx context.Context, w *coppice.Worker) error {
	sys := w.System()
	pool := path.Dir(path.Dir(w.Name()))
	r := &runs{server: s, w: w, queue: w.Lookup(pool + "/" + queueName), live: map[soft]context.CancelCauseFunc{}, early: map[soft]bool{}, once: make(chan struct{})}
	if _, err := sys.Spawn(ctx, serverName, func() actor.Actor { return r }); err != nil {
		return err
	}
	for {
		monitor, err := r.join(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		if err := w.Ready(); err != nil {
			return err
		}
		select {
		case <-monitor.C: // a new one comes; the callers of what runs here have their errors
			if !r.end(errQueue, time.After(time.Second)) {
				return fmt.Errorf("%w, and a call of it did not", errQueue)
			}
			continue
		case <-r.once:
		case <-ctx.Done():
		}
		monitor.Cancel()
		return r.drain()
	}
}

// join says hello to the queue until it answers, or ctx has ended.
func (r *runs) join(ctx context.Context) (*actors.Monitor, error) {
	for {
		monitor := r.w.System().Monitor(r.queue)
		answer, err := actors.Ask[welcome](ctx, r.w.System(), r.queue, joining{r.w.ID(), r.w.Name()})
		if err == nil {
			r.mu.Lock()
			r.welcome = answer
			r.mu.Unlock()
			return monitor, nil
		}
		monitor.Cancel()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(helloPause):
		}
	}
}

// drain tells the queue that this worker takes no more, and waits for what runs.
func (r *runs) drain() error {
	_ = r.w.System().Send(r.w.WorkContext(), r.queue, leave{r.welcome.Life, r.w.ID()}) // on an error the master is gone
	select {
	case <-r.ended():
	case <-r.w.WorkContext().Done():
		r.end(errDraining, time.After(r.cfg.Shutdown/20+100*time.Millisecond))
	}
	return nil
}

// ended returns a channel that is closed when nothing runs.
func (r *runs) ended() <-chan struct{} {
	ended := make(chan struct{})
	go func() { r.wait.Wait(); close(ended) }() // ends with the runs, or the process
	return ended
}

// end ends the contexts of what runs, and waits for it until the time is over.
func (r *runs) end(why error, over <-chan time.Time) bool {
	r.mu.Lock()
	for _, cancel := range r.live {
		cancel(why)
	}
	r.mu.Unlock()
	select {
	case <-r.ended():
		return true
	case <-over:
		return false
	}
}

// Prompt is for actors.Prompt.
func (r *runs) Prompt() {}

// Receive is for protoactor.
func (r *runs) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *run:
		r.begin(ctx, m)
	case soft:
		r.mu.Lock()
		defer r.mu.Unlock()
		if cancel := r.live[m]; cancel != nil {
			cancel(errOver)
		} else if len(r.early) < 64 {
			r.early[m] = true
		}
	}
}

// begin runs a call on a goroutine, which ends when the function returns.
func (r *runs) begin(ctx actor.Context, m *run) {
	key := soft{m.ID, m.Run}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.Life < r.welcome.Life { // of a queue that has ended; a first run can overtake the welcome
		m.close()
		return
	}
	c, cancel := context.WithCancelCause(r.w.WorkContext())
	r.live[key] = cancel
	if r.early[key] {
		delete(r.early, key)
		cancel(errOver)
	}
	caller := actors.Context(ctx)
	r.wait.Add(1)
	go func() {
		defer r.wait.Done()
		growStack()
		a := r.run(c, caller, m)
		a.Life, a.ID, a.Run, a.Worker = m.Life, m.ID, m.Run, r.w.ID()
		r.mu.Lock()
		delete(r.live, key)
		clear(r.early)
		r.mu.Unlock()
		cancel(nil)
		r.w.CountRequests(1)
		_ = r.w.System().Send(context.Background(), r.queue, a) // on an error the queue has ended, and the caller has its error
		if r.cfg.Fresh {
			close(r.once)
		}
	}()
}

// growStack makes the stack of a new goroutine large enough for most calls, while there is nothing on
// it to copy. To let it grow in steps took a worker with short calls a seventh of its time.
//
//go:noinline
func growStack() {
	var room [8 << 10]byte
	goruntime.KeepAlive(&room)
}

// callState is what the functions of this package find in the context of a call.
type callState struct {
	id, scratch string
	run         int
	report      func(id string, b body) error
}

type callKey struct{}

// run runs a call to its end.
func (r *runs) run(ctx, caller context.Context, m *run) (a *answer) {
	defer m.close()
	f, ok := r.functions[m.Func]
	if !ok {
		return &answer{Kind: isRefusal, Text: fmt.Sprintf("the pool has no function %q", m.Func)}
	}
	state := &callState{id: m.ID, run: m.Run, report: r.report}
	if m.Scratch != "" {
		state.scratch = filepath.Join(m.Scratch, strconv.Itoa(r.w.ID()), path.Base(m.ID)+"."+strconv.Itoa(m.Run))
		if err := os.MkdirAll(state.scratch, 0o700); err != nil {
			return &answer{Kind: isRefusal, Text: err.Error()}
		}
		defer os.RemoveAll(state.scratch)
	}
	ctx, span := startRun(ctx, caller, m.Func)
	defer func() {
		if v := recover(); v != nil {
			a = &answer{Kind: isPanic, Text: supervisor.Cut(fmt.Sprint(v)), Stack: supervisor.Cut(string(debug.Stack()))}
		}
		endSpan(span, a.Kind != isAnswer, a.Text)
	}()
	out, err := f.run(context.WithValue(ctx, callKey{}, state), &m.body)
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		return &answer{Kind: isRefusal, Text: refused.Why}
	}
	if err != nil {
		return &answer{Kind: isError, Text: supervisor.Cut(err.Error())}
	}
	return &answer{body: out}
}

func (r *runs) report(id string, b body) error {
	return r.w.System().Send(context.Background(), r.queue, &progress{ID: id, body: b})
}

// Scratch returns the directory of the call that ctx is of; "" if Config.Scratch is not set. It is
// empty at first, of mode 0700, and removed with all in it when the call has ended.
func Scratch(ctx context.Context) string {
	s, _ := ctx.Value(callKey{}).(*callState)
	if s == nil {
		return ""
	}
	return s.scratch
}

// Attempt returns which run of its call ctx is of, from 1; 0 outside of a call. It is above 1 if a
// worker died with the call before, and for a call that did not reach the worker that it was for.
func Attempt(ctx context.Context) int {
	s, _ := ctx.Value(callKey{}).(*callState)
	if s == nil {
		return 0
	}
	return s.run
}

// Report tells the caller how far the call is. v goes as an answer does. It waits while the channel
// to the master is full. Reports come in order, before the answer; one whose caller has not asked
// for progress is dropped by the master. Outside of a call it does nothing.
func Report[T any](ctx context.Context, v T) error {
	s, _ := ctx.Value(callKey{}).(*callState)
	if s == nil {
		return nil
	}
	b, err := encode(v)
	if err != nil {
		return &RefusedError{err.Error()}
	}
	return s.report(s.id, b)
}
