package hosts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors/hosts/internal/singleton"
	coppice "github.com/coppice-go/coppice/runtime"
)

// ErrGivenUp says that a singleton has failed too often in the cluster: no host runs it.
var ErrGivenUp = errors.New("singleton given up in the cluster")

// A Singleton is what one host of a cluster runs: the one that holds its name. Every host that
// could run it has the child of Config.Singleton.
type Singleton struct {
	Name string // of the cluster
	// Run is the work of a singleton without a tree (Names.RunSingleton). Its context has the fence
	// (FenceOf) and ends when the name is lost, or when RunSingleton is to end; then Run returns
	// within the margin, or another host begins beside it. A return without that, whatever the
	// error, and a panic, is a failure: the name is given back, and another host tries; what can be
	// mended on this host is mended within Run, by a supervisor.
	Run   func(ctx context.Context) error
	Value []byte // what Names.Lookup tells of the holder
	// Budget of the cluster: with failure number Max within Period every host gives up. Zero: 3 in
	// 60 s. Period is 1 s to 1 h.
	Max    int
	Period time.Duration

	pid  *actor.PID                      // whom the name stands for
	kill func()                          // ends this process, as Run has not returned in time; may be nil
	mark func(ctx context.Context) error // before Run; may be nil
}

// Singleton returns a child for each host that could run s: a pool of one process, whose function
// is called in whichever holds the name, with s.Run's rules. hosts.Lookup of the name is the actor
// of that name that it spawns there, which is stopped when the function has returned. What the
// process sends to others carries the fence (Guard.CheckMessage).
//
// A function that has not returned when the name can be another's is not waited for: the process
// kills itself, by a timer that waits for nothing else, and the supervisor starts another one. That
// needs a process; a worker that is a goroutine cannot be killed, and the log says so.
func (c *Config) Singleton(s Singleton, run coppice.WorkerFunc) coppice.Pool {
	return coppice.Pool{Name: s.Name, Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error {
		names, err := c.Names(w.System())
		if err != nil {
			return err
		}
		if err := w.Ready(); err != nil { // the name is not waited for
			return err
		}
		s := s // workers may be goroutines
		s.pid = actor.NewPID(w.System().Address(), s.Name)
		s.kill = func() {
			if coppice.Running() != nil {
				c.log().Error("hosts: a singleton has lost its name and goes on: it is a goroutine", "name", s.Name)
				return
			}
			c.log().Error("hosts: a singleton has lost its name and goes on: its process is killed", "name", s.Name)
			if self, err := os.FindProcess(os.Getpid()); err == nil {
				_ = self.Kill()
			}
		}
		s.mark = func(ctx context.Context) error {
			f, _ := FenceOf(ctx)
			return w.System().Mark(fenceHeader, f.String())
		}
		s.Run = func(ctx context.Context) error {
			// It acts for the name, which may come back to this process.
			defer func() { _ = w.System().Stop(context.WithoutCancel(ctx), s.pid) }()
			return run(ctx, w)
		}
		return names.RunSingleton(ctx, s)
	}}
}

// The times of a singleton that are no fields.
const (
	standBack      = 5 * time.Second        // for how long the host of a failure leaves the name to others
	singletonPause = 250 * time.Millisecond // between two tries to claim the name, or to count
)

// RunSingleton runs s whenever this host holds its name, until ctx ends (nil: Run has returned, and
// the name is given back), or the cluster gives up (ErrGivenUp, with this host's last failure if it
// had one). Cut off from the engine it waits. A host that is cut off when the others give up may
// try once more when it comes back; the mark that says so goes Period after the last failure, so
// that a program that is started again later begins anew.
func (n *Names) RunSingleton(ctx context.Context, s Singleton) error {
	if s.Max == 0 && s.Period == 0 {
		s.Max, s.Period = 3, time.Minute
	}
	if err := checkPart(s.Name); err != nil {
		return fmt.Errorf("hosts: Singleton.Name: %w", err)
	}
	if s.Run == nil || s.Max < 1 || s.Period < time.Second || s.Period > time.Hour || len(s.Value) > MaxHolding {
		return fmt.Errorf("hosts: singleton %q: Run, Max (%d), Period (%v) or Value (%d bytes) cannot be used", s.Name, s.Max, s.Period, len(s.Value))
	}
	r := &singletonRun{
		names: n, spec: s, answers: make(chan singletonAnswer, 1), // a call at a time
		rule: singleton.New(singleton.Config{Max: s.Max, StandBack: standBack, Pause: singletonPause}),
	}
	if s.kill != nil {
		var err error
		if r.late, err = n.clock.alarm(s.kill); err != nil {
			return fmt.Errorf("hosts: singleton %q: %w", s.Name, err)
		}
		defer r.late.stop()
	}
	return r.loop(ctx)
}

// singletonRun drives the rule of one RunSingleton, on the goroutine of its caller. Run has a
// goroutine of its own.
type singletonRun struct {
	names   *Names
	spec    Singleton
	rule    *singleton.State
	answers chan singletonAnswer
	late    alarm // kills the process; nil: nothing does
	holding *Holding
	lost    <-chan struct{}
	cancel  context.CancelFunc
	failure error // of Run, the last one
	running bool
}

// singletonAnswer is the answer to a call: what has happened, and the holding that was won, or how
// Run has failed.
type singletonAnswer struct {
	singleton.Event
	holding *Holding
	failure error
}

func (r *singletonRun) loop(ctx context.Context) error {
	n := r.names
	asked := ctx.Done()
	changed, ev := r.look()
	for {
		for _, e := range r.rule.Step(singleton.Time(n.clock.now()), ev) {
			switch e {
			case singleton.Finish:
				return nil
			case singleton.GiveUp:
				return errors.Join(fmt.Errorf("hosts: singleton %q: %w", r.spec.Name, ErrGivenUp), r.failure)
			case singleton.Cancel:
				r.cancel()
			default:
				r.call(ctx, e)
			}
		}
		var due <-chan time.Time
		if at := r.rule.Next(); at != 0 {
			due = time.After(max(0, time.Duration(at-singleton.Time(n.clock.now()))))
		}
		select {
		case a := <-r.answers:
			switch ev = a.Event; ev.Kind {
			case singleton.Ended:
				r.failure = a.failure
				if r.late != nil {
					r.late.set(0)
				}
			case singleton.Released:
				r.holding, r.lost = nil, nil
			case singleton.Won:
				r.holding, r.lost = a.holding, a.holding.ctx.Done()
			default:
			}
		case <-r.lost:
			r.lost = nil
			if r.late != nil && r.running {
				r.late.set(max(1, r.holding.end))
			}
			ev = singleton.Event{Kind: singleton.Lost}
		case <-asked:
			asked = nil
			ev = singleton.Event{Kind: singleton.Stop}
		case <-n.done:
			if r.running { // its context has ended, and another may act
				if r.late != nil {
					r.late.set(max(1, r.holding.end))
				}
				<-r.answers
			}
			return fmt.Errorf("hosts: singleton %q: %w", r.spec.Name, ErrNamesClosed)
		case <-changed:
			changed, ev = r.look()
		case <-due:
			changed, ev = r.look()
		}
	}
}

// look reads the view, and returns what is closed when it changes. Before the first listing the
// name counts as held.
func (r *singletonRun) look() (<-chan struct{}, singleton.Event) {
	n := r.names
	changed, listed := n.view.next() // before the rest, so that no change is missed
	_, held := n.view.get(n.nameKey(r.spec.Name))
	_, givenUp := n.view.get(n.markKey(r.spec.Name))
	return changed, singleton.Event{Kind: singleton.Look, Held: held || !listed, GivenUp: givenUp}
}

func (n *Names) failuresPrefix(name string) string { return n.root + "failures/" + name + "/" }
func (n *Names) markKey(name string) string        { return n.root + "givenup/" + name }

// call makes a call on a goroutine that ends with its answer.
func (r *singletonRun) call(ctx context.Context, e singleton.Effect) {
	n := r.names
	switch e {
	case singleton.Run:
		r.running = true
		run, cancel := context.WithCancel(r.holding.ctx)
		r.cancel = cancel
		go func() { // the caller waits for it, or for its name to be lost
			ended := singletonAnswer{Event: singleton.Event{Kind: singleton.Ended}, failure: errors.New("ended by runtime.Goexit")}
			defer func() {
				if p := recover(); p != nil {
					ended.failure = fmt.Errorf("panic: %v\n\n%s", p, debug.Stack())
				}
				cancel()
				r.answers <- ended
			}()
			if r.spec.mark != nil {
				if ended.failure = r.spec.mark(run); ended.failure != nil {
					return
				}
			}
			if ended.failure = r.spec.Run(run); ended.failure == nil {
				ended.failure = errors.New("ended without having been asked to")
			}
		}()
	case singleton.Claim:
		go func() {
			h, err := n.register(ctx, r.spec.Name, r.spec.Value, r.spec.pid)
			a := singletonAnswer{Event: singleton.Event{Kind: singleton.NotWon}}
			if err == nil {
				a.Kind, a.holding = singleton.Won, h
			}
			r.answers <- a
		}()
	case singleton.Release:
		r.running = false
		h := r.holding
		go func() {
			limit, cancel := context.WithTimeout(n.ctx, n.cfg.Lease)
			defer cancel()
			_ = h.Release(limit) // or its lease ends
			r.answers <- singletonAnswer{Event: singleton.Event{Kind: singleton.Released}}
		}()
	case singleton.Count, singleton.Mark:
		r.running = false
		h, why := r.holding, r.failure
		go func() {
			limit, cancel := context.WithTimeout(n.ctx, n.cfg.Lease/3)
			defer cancel()
			count, err := n.recordFailure(limit, h, r.spec.Period, why, e == singleton.Mark)
			ev := singleton.Event{Kind: singleton.Counted, N: count}
			switch {
			case err != nil:
				ev.Kind = singleton.Failed
			case e == singleton.Mark:
				ev.Kind = singleton.Marked
			}
			r.answers <- singletonAnswer{Event: ev}
		}()
	default:
	}
}

// maxFailure is the most bytes of a failure's text that are recorded.
const maxFailure = 4096

// failureValue is the value of the entry of a failure, or of a mark.
type failureValue struct {
	Host  string `json:"host"`
	Boot  string `json:"boot"`
	Error string `json:"error"`
}

// recordFailure makes the entry of a failure, or the mark, for a period, if the name is held still,
// and returns how many failures there are. The engine's leases count the period, so no clocks are
// compared. Once more for the same holding changes the entry that is there.
func (n *Names) recordFailure(ctx context.Context, h *Holding, period time.Duration, why error, mark bool) (int, error) {
	l, err := n.engine.Grant(ctx, period)
	if err != nil {
		return 0, err
	}
	name := h.fence.Name
	key := n.markKey(name)
	if !mark {
		key = fmt.Sprint(n.failuresPrefix(name), h.fence.Number)
	}
	text := fmt.Sprint(why)
	record := failureValue{Host: n.cfg.Host, Boot: n.cfg.Boot, Error: text[:min(len(text), maxFailure)]}
	value, err := json.Marshal(record)
	if err != nil {
		return 0, err
	}
	res, err := n.engine.Commit(ctx, Txn{
		If:   []Cond{{Key: n.nameKey(name), Created: h.fence.Number}},
		Then: []Op{{Key: key, Value: value, Lease: l}},
	})
	if err != nil || !res.Done {
		_ = n.engine.Revoke(ctx, l)
		return 0, errors.Join(err, ErrLost)
	}
	if mark {
		return 0, nil
	}
	found, err := n.engine.List(ctx, n.failuresPrefix(name))
	return len(found.Entries), err
}
