package pool

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fxamacker/cbor/v2"
)

// saved is a pool that is suspended, with nothing under way: what Save returns, as CBOR. Its times
// are the pool's own.
type saved struct {
	Began    time.Duration // when those begin, by the clock that goes on over an exec
	Gen      Generation
	Last     WorkerSeq
	Slots    []savedSlot
	Workers  []savedWorker
	Drains   []WorkerSeq `cbor:",omitempty"`
	Failures int         `cbor:",omitempty"`
	Retry    Time        `cbor:",omitempty"`
}

type savedSlot struct {
	N        int
	Gen      Generation
	Running  bool      `cbor:",omitempty"`
	Current  WorkerSeq `cbor:",omitempty"`
	Why      Purpose   `cbor:",omitempty"` // of the latest replacement
	Done     bool      `cbor:",omitempty"`
	Due      bool      `cbor:",omitempty"`
	Once     bool      `cbor:",omitempty"`
	Early    int       `cbor:",omitempty"`
	Hold     Time      `cbor:",omitempty"`
	Failures int       `cbor:",omitempty"`
	Retry    Time      `cbor:",omitempty"`
}

type savedWorker struct {
	ID       WorkerSeq
	Gen      Generation
	Slot     int
	Spare    bool `cbor:",omitempty"`
	Draining bool `cbor:",omitempty"` // else it is its slot's
	Forced   bool `cbor:",omitempty"`
	Since    Time `cbor:",omitempty"`
}

// decoding refuses what no writer writes, and ignores fields that a later release writes.
var decoding = func() cbor.DecMode {
	m, err := cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, MaxNestedLevels: 8}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return m
}()

// UnderWay tells what has begun and is not over, which a pool cannot be saved in; "" is nothing.
// After Suspend, nothing more begins by itself.
func (s *State) UnderWay() string {
	switch {
	case s.stopping:
		return "the pool stops"
	case s.roll != nil || slices.ContainsFunc(s.waiting, func(ev Event) bool { return ev.Kind == Roll }):
		return "a reload is under way"
	case s.scale != nil || len(s.waiting) > 0:
		return "the pool is being scaled"
	}
	for _, sl := range s.inOrder() {
		switch {
		case sl.startPending:
			return fmt.Sprintf("slot %d is being started", sl.n)
		case sl.stopping:
			return fmt.Sprintf("slot %d is being stopped", sl.n)
		case sl.replacing != notReplacing:
			return fmt.Sprintf("the worker of slot %d is being replaced", sl.n)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(s.workers)) {
		switch s.workers[id].phase {
		case launching, assigned, warming:
			return fmt.Sprintf("worker %d is being started", id)
		case dying:
			return fmt.Sprintf("worker %d is being killed", id)
		case spare, active, draining:
		}
	}
	return ""
}

// Save returns what the next image of the program needs to know of s, whose time began at began by
// the clock that goes on over an exec. s is suspended, and nothing is under way.
func (s *State) Save(began time.Duration) ([]byte, error) {
	if why := s.UnderWay(); why != "" {
		return nil, errors.New(why)
	}
	v := saved{Began: began, Gen: s.gen, Last: s.last, Drains: s.drains, Failures: s.failures, Retry: s.retry}
	for _, sl := range s.inOrder() {
		v.Slots = append(v.Slots, savedSlot{sl.n, sl.gen, sl.running, sl.current, sl.why, sl.done, sl.due, sl.once, sl.early, sl.hold, sl.failures, sl.retry})
	}
	for _, id := range slices.Sorted(maps.Keys(s.workers)) {
		w := s.workers[id]
		v.Workers = append(v.Workers, savedWorker{id, w.gen, w.slot, w.phase == spare, w.phase == draining, w.forced, w.since})
	}
	return cbor.Marshal(v)
}

// Restore makes the pool that Save was called on, with the settings of this program, and returns it
// suspended, with the time at which its own began. Ended reports a worker that
// does not live on, as any.
func Restore(b []byte, cfg Config) (*State, time.Duration, error) {
	var v saved
	if err := decoding.Unmarshal(b, &v); err != nil {
		return nil, 0, fmt.Errorf("coppice: state of a pool: %w", err)
	}
	s := New(cfg, v.Gen)
	s.last, s.drains, s.failures, s.retry, s.suspended = v.Last, v.Drains, v.Failures, v.Retry, true
	bad := func(format string, a ...any) (*State, time.Duration, error) {
		return nil, 0, fmt.Errorf("coppice: state of a pool: "+format, a...)
	}
	for _, sl := range v.Slots {
		if sl.N < 0 || s.slots[sl.N] != nil || sl.Running && sl.Current == 0 {
			return bad("Slots: slot %d", sl.N)
		}
		s.slots[sl.N] = &slot{
			n: sl.N, gen: sl.Gen, running: sl.Running, current: sl.Current, why: sl.Why, done: sl.Done,
			due: sl.Due, once: sl.Once, early: max(sl.Early, 0), hold: sl.Hold, failures: max(sl.Failures, 0), retry: sl.Retry,
		}
	}
	current, drains := 0, 0
	for _, w := range v.Workers {
		phase, sl := active, s.slots[w.Slot]
		switch {
		case w.Draining:
			phase = draining
			drains++
		case w.Spare:
			phase = spare
		default:
			current++
		}
		if w.ID == 0 || w.ID > v.Last || s.workers[w.ID] != nil || phase == active && (sl == nil || sl.current != w.ID) ||
			w.Draining != slices.Contains(v.Drains, w.ID) {
			return bad("Workers: worker %d", w.ID)
		}
		s.workers[w.ID] = &worker{id: w.ID, gen: w.Gen, slot: w.Slot, phase: phase, forced: w.Forced, since: w.Since}
	}
	for _, sl := range s.slots {
		if sl.current != 0 {
			current--
		}
	}
	if current != 0 || drains != len(v.Drains) {
		return bad("Slots or Drains have a worker that is not in Workers")
	}
	return s, v.Began, nil
}
