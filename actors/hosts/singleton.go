package hosts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/internal/singleton"
)

// ErrGivenUp says that a singleton has failed too often in the cluster: no host runs it.
var ErrGivenUp = errors.New("singleton given up in the cluster")

// A Singleton is what one host of a cluster runs: the one that holds its name. Every host that
// could run it calls Names.RunSingleton, as a child that the supervisor restarts.
type Singleton struct {
	Name string // of the cluster
	// Run is the work. Its context has the fence (FenceOf) and ends when the name is lost, or when
	// RunSingleton is to end; then Run returns within NamesConfig.Margin, or another host begins
	// beside it. A return without that, whatever the error, is a failure: the name is given back,
	// and another host tries; what can be mended on this host is mended within Run, by a
	// supervisor. A panic goes on to the caller of RunSingleton, and the name is given back.
	Run   func(ctx context.Context) error
	Value []byte // what Names.Lookup tells of the holder
	// Budget of the cluster: with failure number Max within Period every host gives up. Zero: 3 in
	// 60 s. Period is 1 s to 1 h.
	Max    int
	Period time.Duration
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
		names: n, spec: s, answers: make(chan singleton.Event, 1), // a call at a time
		rule: singleton.New(singleton.Config{Max: s.Max, StandBack: standBack, Pause: singletonPause}),
	}
	defer r.clean()
	return r.loop(ctx)
}

// singletonRun drives the rule of one RunSingleton, on the goroutine of its caller. Run has a
// goroutine of its own.
type singletonRun struct {
	names    *Names
	spec     Singleton
	rule     *singleton.State
	answers  chan singleton.Event
	holding  *Holding
	lost     <-chan struct{}
	cancel   context.CancelFunc
	failure  error // of Run, the last one
	panicked any
	running  bool
}

// clean gives back the name if the loop has ended by a panic.
func (r *singletonRun) clean() {
	if r.holding != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.holding.Release(ctx)
	}
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
		case ev = <-r.answers:
			if ev.Kind == singleton.Ended && r.panicked != nil {
				panic(r.panicked)
			}
			if ev.Kind == singleton.Released {
				r.holding, r.lost = nil, nil
			}
			if ev.Kind == singleton.Won {
				r.lost = r.holding.ctx.Done()
			}
		case <-r.lost:
			r.lost = nil
			ev = singleton.Event{Kind: singleton.Lost}
		case <-asked:
			asked = nil
			ev = singleton.Event{Kind: singleton.Stop}
		case <-n.done:
			if r.running {
				<-r.answers // its context has ended
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
			defer func() {
				if p := recover(); p != nil {
					r.panicked = p
				}
				cancel()
				r.answers <- singleton.Event{Kind: singleton.Ended}
			}()
			if r.failure = r.spec.Run(run); r.failure == nil {
				r.failure = errors.New("ended without having been asked to")
			}
		}()
	case singleton.Claim:
		go func() {
			h, err := n.Register(ctx, r.spec.Name, r.spec.Value)
			ev := singleton.Event{Kind: singleton.NotWon}
			if err == nil {
				r.holding, ev.Kind = h, singleton.Won
			}
			r.answers <- ev
		}()
	case singleton.Release:
		r.running = false
		h := r.holding
		go func() {
			limit, cancel := context.WithTimeout(n.ctx, n.cfg.Lease)
			defer cancel()
			_ = h.Release(limit) // or its lease ends
			r.answers <- singleton.Event{Kind: singleton.Released}
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
			r.answers <- ev
		}()
	default:
	}
}

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
	record := failureValue{Host: n.cfg.Host, Boot: n.cfg.Boot, Error: text[:min(len(text), 1024)]}
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
