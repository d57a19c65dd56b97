package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
)

const (
	maxJobs     = 10_000                 // that are known; those that are over make room
	maxAttempts = 3                      // of a job that kills its worker
	pause       = 100 * time.Millisecond // before the second attempt; it doubles
)

// What the workers of web ask the list. It answers each with a reply.
type (
	submit struct{ Input string }
	look   struct{ ID int }
	count  struct{}
	reply  struct {
		Text string // "" = there is none
		Full bool   // all jobs of the list wait
	}
)

// ended is a run's end, told to the list by the goroutine that waited for it.
type ended struct {
	id     int
	result string
	err    error
}

func init() {
	actors.RegisterType[submit]("jobs.submit")
	actors.RegisterType[look]("jobs.look")
	actors.RegisterType[count]("jobs.count")
	actors.RegisterType[reply]("jobs.reply")
}

// job is one of the list; it waits or runs until its State is "done" or "failed".
type job struct {
	ID       int
	Input    string
	State    string
	Attempts int // that have ended, of which those of others' doing do not count
	Result   string
}

func (j *job) String() string {
	if j.State == "" {
		return fmt.Sprintf("job %d waits or runs, attempts %d", j.ID, j.Attempts)
	}
	return fmt.Sprintf("job %d %s, attempts %d: %s", j.ID, j.State, j.Attempts, j.Result)
}

// list is an actor of the master. It has the jobs, and each that is to run has a call of the pool.
type list struct {
	jobs map[int]*job
	last int
}

func (l *list) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case submit:
		if len(l.jobs) == maxJobs && !l.forget() {
			ctx.Respond(reply{Full: true})
			return
		}
		l.last++
		j := &job{ID: l.last, Input: m.Input}
		l.jobs[j.ID] = j
		l.start(ctx, j, 0)
		ctx.Respond(reply{Text: j.String()})
	case look:
		var r reply
		if j := l.jobs[m.ID]; j != nil {
			r.Text = j.String()
		}
		ctx.Respond(r)
	case count:
		n := map[string]int{}
		for _, j := range l.jobs {
			n[j.State]++
		}
		ctx.Respond(reply{Text: fmt.Sprintf("%d wait or run, %d done, %d failed", n[""], n["done"], n["failed"])})
	case ended:
		l.end(ctx, l.jobs[m.id], m)
	}
}

// start has a job run after a while.
func (l *list) start(ctx actor.Context, j *job, after time.Duration) {
	rt, self, id, t := coppice.Running(), ctx.Self(), j.ID, task{j.Input, j.Attempts + 1}
	time.AfterFunc(after, func() { // ends with the call, at the latest with the tree
		result, err := jobs.Call[string](context.Background(), rt, "work/run", t)
		_ = rt.System().Send(context.Background(), self, ended{id, result, err}) // or the tree has ended
	})
}

// end notes what came of a run. The function's own error is final; what kills the worker is run
// again, up to a number of attempts; what says nothing of the job, as a full queue, is no attempt.
func (l *list) end(ctx actor.Context, j *job, m ended) {
	_, own := errors.AsType[*jobs.FuncError](m.err)
	_, died := errors.AsType[*jobs.DiedError](m.err)
	_, late := errors.AsType[*jobs.DeadlineError](m.err)
	_, panicked := errors.AsType[*jobs.PanicError](m.err)
	if m.err == nil || own || died || late || panicked {
		j.Attempts++
	}
	switch {
	case m.err == nil:
		j.State, j.Result = "done", m.result
	case own || j.Attempts == maxAttempts:
		j.State, j.Result = "failed", m.err.Error()
	default:
		l.start(ctx, j, pause<<max(0, j.Attempts-1))
	}
}

// forget makes room: it drops the oldest job that is over, if there is one.
func (l *list) forget() bool {
	oldest := 0
	for id, j := range l.jobs {
		if j.State != "" && (oldest == 0 || id < oldest) {
			oldest = id
		}
	}
	delete(l.jobs, oldest)
	return oldest != 0
}

// HandOver gives the list to the program that replaces this one.
func (l *list) HandOver(actor.Context) (actors.Handover, error) {
	state, err := json.Marshal(l.jobs)
	return actors.Handover{Version: 1, State: state}, err
}

// TakeOver takes it. The calls have ended with the program before, so what is not over runs again.
func (l *list) TakeOver(ctx actor.Context, h actors.Handover) error {
	if err := json.Unmarshal(h.State, &l.jobs); err != nil {
		return err
	}
	for _, j := range l.jobs {
		l.last = max(l.last, j.ID)
		if j.State == "" {
			l.start(ctx, j, pause)
		}
	}
	return nil
}
