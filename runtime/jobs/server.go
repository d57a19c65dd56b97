package jobs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	goruntime "runtime"
	"runtime/debug"
	"slices"
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

// helloPause is between two tries of a worker to reach a queue that is being restarted.
const helloPause = 20 * time.Millisecond

// server is a pool's worker function: it runs the calls that the queue hands over.
type server struct {
	cfg       Config
	functions map[string]Function
}

// runs are the calls of one worker. Safe for concurrent use.
type runs struct {
	*server
	w     *coppice.Worker
	queue *actor.PID

	mu      sync.Mutex
	welcome welcome
	past    int64 // the Life of the last queue that has ended: what comes later of it is dropped
	live    map[runKey]context.CancelCauseFunc
	early   []soft // that came before their runs, which may be on their way; the oldest first
	wait    sync.WaitGroup
	cut     bool // a run has no answer, because this worker has to end

	had    chan struct{} // closed when a Fresh worker has had its call
	setHad func()
}

// ballast is memory that is never touched, and so none of the machine's. The collector, which runs
// when the garbage is as much as the rest, counts it: once for each ballastBytes of inputs that
// functions were given, and not for a few MiB of them. It leaves most of a memory limit to others.
var ballast = sync.OnceValue(func() []byte { return make([]byte, min(ballastBytes, debug.SetMemoryLimit(-1)/16)) })

const ballastBytes = 16 << 20

// maxEarly bounds runs.early.
const maxEarly = 64

// atStep is called by a worker at the steps of a call, with its ID; for tests.
var atStep = func(step, id string) {}

// Why the context of a call ends. context.Cause tells.
var (
	errOver     = fmt.Errorf("jobs: the time of the call is over: %w", context.DeadlineExceeded)
	errGone     = errors.New("jobs: the caller of the call has gone")
	errQueue    = errors.New("jobs: the queue of the pool has ended")
	errDraining = errors.New("jobs: the worker has to end")
)

// serve is the worker function.
func (s *server) serve(ctx context.Context, w *coppice.Worker) error {
	sys := w.System()
	pool := path.Dir(path.Dir(w.Name()))
	r := &runs{server: s, w: w, queue: w.Lookup(pool + "/" + queueName), live: map[runKey]context.CancelCauseFunc{}, had: make(chan struct{})}
	r.setHad = sync.OnceFunc(func() { close(r.had) })
	if _, err := sys.Spawn(ctx, serverName, func() actor.Actor { return r }); err != nil {
		return err
	}
	// First, so that a call that kills it at once is no failed start.
	if err := w.Ready(); err != nil {
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
		select {
		case <-monitor.C: // a new one comes; the callers of what runs here have their errors
			r.mu.Lock()
			r.past = r.welcome.Life
			r.mu.Unlock()
			if !r.end(errQueue, time.After(time.Second)) {
				return fmt.Errorf("%w, and a call of it did not", errQueue)
			}
			_ = os.Remove(r.welcome.Scratch) // a queue that was replaced has not; where calls have directories it fails
			select {
			case <-r.had:
				return nil
			default:
				continue
			}
		case <-r.had:
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
		// Not ended by ctx: who has joined must leave.
		answer, err := actors.Ask[welcome](r.w.WorkContext(), r.w.System(), r.queue, joining{r.w.ID(), r.w.Name()})
		if err == nil {
			r.mu.Lock()
			r.welcome = answer
			r.mu.Unlock()
			select {
			case <-monitor.C: // of the queue before, which ended meanwhile: the new one's end is to be told too
				continue
			default:
				return monitor, nil
			}
		}
		monitor.Cancel()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(helloPause):
		}
	}
}

// drain tells the queue that this worker takes no more, and waits until the queue has the answers
// of all that it has handed over, or for what runs if there is no queue any more.
func (r *runs) drain() error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	over := make(chan struct{})
	go func() { // ends with the queue's answer, or with what runs
		defer close(over)
		if _, err := actors.Ask[left](ctx, r.w.System(), r.queue, leave{r.welcome.Life, r.w.ID()}); err != nil {
			r.wait.Wait()
		}
	}()
	select {
	case <-over:
		return nil
	case <-r.w.WorkContext().Done():
	}
	limit := time.After(r.cfg.Shutdown/20 + 100*time.Millisecond)
	if r.end(errDraining, limit) && !r.hasCut() {
		select {
		case <-over:
		case <-limit:
		}
	}
	return nil
}

func (r *runs) hasCut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.cut
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
		if cancel := r.live[m.runKey]; cancel != nil {
			cancel(m.why())
			return
		}
		if len(r.early) == maxEarly {
			r.early = r.early[1:]
		}
		r.early = append(r.early, m)
	}
}

// why returns the cause of the context's end.
func (m soft) why() error {
	if m.Expired {
		return errOver
	}
	return errGone
}

// begin runs a call on a goroutine, which ends when the function returns.
func (r *runs) begin(ctx actor.Context, m *run) {
	key := runKey{m.Life, m.ID, m.Run}
	r.mu.Lock()
	defer r.mu.Unlock()
	if m.Life == r.past {
		m.close()
		return
	}
	c, cancel := context.WithCancelCause(r.w.WorkContext())
	r.live[key] = cancel
	if i := slices.IndexFunc(r.early, func(s soft) bool { return s.runKey == key }); i >= 0 {
		cancel(r.early[i].why())
		r.early = slices.Delete(r.early, i, i+1)
	}
	caller := actors.Context(ctx)
	r.wait.Add(1)
	go func() {
		defer r.wait.Done()
		growStack()
		atStep("claimed", m.ID)
		size := len(m.Bytes)
		a := r.run(c, caller, m)
		if m.Bytes == nil && size >= minPooled { // the function has it
			ballast()
		}
		a.Life, a.ID, a.Run, a.Worker = m.Life, m.ID, m.Run, r.w.ID()
		why := context.Cause(c)
		// An error then is not the function's: the end of this worker tells what became of the
		// call.
		cut := a.Kind == isError && why != nil && !errors.Is(why, errOver) && !errors.Is(why, errGone) && !errors.Is(why, errQueue)
		r.mu.Lock()
		delete(r.live, key)
		r.cut = r.cut || cut
		r.mu.Unlock()
		cancel(nil)
		r.w.CountRequests(1)
		if !cut {
			atStep("answering", m.ID)
			r.answer(a)
			atStep("arrived", m.ID)
		}
		m.unmap() // the answer may be a part of it
		m.recycle()
		if r.cfg.Fresh {
			r.setHad()
		}
	}()
}

// growStack makes the stack of a new goroutine large enough for most calls, while there is nothing
// on it to copy. To let it grow in steps took a worker with short calls a seventh of its time.
//
//go:noinline
func growStack() {
	var room [8 << 10]byte
	goruntime.KeepAlive(&room)
}

// answer sends an answer. If it cannot be sent, as with a file that is closed, the caller hears
// why.
func (r *runs) answer(a *answer) {
	err := r.w.System().Send(context.Background(), r.queue, a)
	if err == nil || errors.Is(err, actors.ErrDown) || errors.Is(err, actors.ErrNoActor) { // the caller has its error
		return
	}
	refusal := &answer{Life: a.Life, ID: a.ID, Run: a.Run, Worker: a.Worker, Kind: isRefusal, Text: "the answer: " + err.Error()}
	_ = r.w.System().Send(context.Background(), r.queue, refusal) // on an error the queue has ended
}

// callState is what the functions of this package find in the context of a call.
type callState struct {
	*runs
	*run
	scratch   string
	reporting chan struct{} // has room for one
}

type callKey struct{}

// run runs a call to its end.
func (r *runs) run(ctx, caller context.Context, m *run) (a *answer) {
	defer m.close()
	f, ok := r.functions[m.Func]
	if !ok {
		return &answer{Kind: isRefusal, Text: fmt.Sprintf("the pool has no function %q", m.Func)}
	}
	state := &callState{runs: r, run: m, reporting: make(chan struct{}, 1)}
	if m.Scratch != "" {
		var err error // its name cannot be foretold: other users of the machine may write where it is
		if state.scratch, err = os.MkdirTemp(m.Scratch, strconv.Itoa(r.w.ID())+"-"); err != nil {
			return &answer{Kind: isRefusal, Text: err.Error()}
		}
		defer os.RemoveAll(state.scratch)
	}
	ctx, span := startRun(ctx, caller, m)
	defer func() {
		if v := recover(); v != nil {
			a = &answer{Kind: isPanic, Text: supervisor.Cut(fmt.Sprint(v)), Stack: supervisor.Cut(string(debug.Stack()))}
		}
		errorType := ""
		if e, _ := (&outcome{Answer: a.Kind}).end(); e != endAnswer {
			errorType = e.String()
		}
		endSpan(span, errorType, a.Text)
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

// report sends a report, and waits until the caller has had it.
func (s *callState) report(ctx context.Context, b body) error {
	select {
	case s.reporting <- struct{}{}:
	case <-ctx.Done():
		b.close()
		return context.Cause(ctx)
	}
	_, err := actors.Ask[bool](ctx, s.w.System(), s.queue, &progress{Life: s.Life, ID: s.ID, Run: s.Run, body: b})
	<-s.reporting
	return err
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
	return s.Run
}

// Report tells the caller how far the call is. v goes as an answer does. Report waits until the
// caller's function has returned, or ctx has ended, which is then its error: so reports come in
// order, before the answer, and a caller that is slow is not flooded. One whose caller has not
// asked for progress is dropped by the master, and one longer than MaxBytes is a [TooLargeError].
// Outside of a call Report does nothing.
func Report[T any](ctx context.Context, v T) error {
	s, _ := ctx.Value(callKey{}).(*callState)
	if s == nil {
		return nil
	}
	b, err := encode(v)
	if err != nil {
		return &RefusedError{err.Error()}
	}
	if size, most := b.size(), s.cfg.MaxBytes; size > most {
		b.close()
		return &TooLargeError{true, size, most}
	}
	return s.report(ctx, b)
}
