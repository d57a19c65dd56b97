package rules

import (
	"fmt"
	"slices"
)

// Saved is what a supervisor that is held knows besides its children. The zero value of each field
// means that there was none. Its times are those of the supervisor's own clock.
type Saved struct {
	Flags    Flags
	LastKey  Key
	LastRun  uint64
	Window   Window `cbor:",omitempty"`
	LastUp   Time   `cbor:",omitempty"`
	Excess   int    `cbor:",omitempty"`
	Deferred []Late `cbor:",omitempty"`
}

// Late is an event that waited in State.Deferred: the end of an instance, or a timer.
type Late struct {
	Key   Key
	Timer bool `cbor:",omitempty"`
}

// Save returns what the next image of the program needs to know of s, and its children in their
// order; without calls, whose callers are gone. It reports false if s is not held, or something is
// still under way.
func (s *State) Save() (Saved, []Child, bool) {
	v := Saved{Flags: s.Flags, LastKey: s.LastKey, LastRun: s.LastRun, Window: s.Window, LastUp: s.LastUp, Excess: s.Excess}
	for i := range s.Deferred {
		if ev := &s.Deferred[i]; ev.Kind == Exited || ev.Kind == Timer {
			v.Deferred = append(v.Deferred, Late{ev.Key, ev.Kind == Timer})
		}
	}
	children, quiet := make([]Child, 0, s.Order.Count), s.Work == HoldWork
	for p := s.Order.Present.next(0); p >= 0; p = s.Order.Present.next(p + 1) {
		c := *s.Children[s.Order.Keys[p]]
		c.Pos, c.Calls = 0, nil
		children, quiet = append(children, c), quiet && c.Phase != Starting && c.Phase != Stopping
	}
	return v, children, quiet
}

// Check returns an error that names what no Save can have returned.
func (v *Saved) Check(children []Child) error {
	keys, ids, late := make(map[Key]bool, len(children)), make(map[string]bool, len(children)), make(map[Key]bool)
	for _, l := range v.Deferred {
		late[l.Key] = late[l.Key] || !l.Timer
	}
	for i := range children {
		c := &children[i]
		bad := ""
		switch {
		case c.Key == 0 || c.Key > v.LastKey || keys[c.Key]:
			bad = fmt.Sprintf("Key %d", c.Key)
		case v.Flags.Strategy != Dynamic && (c.ID == "" || ids[c.ID]):
			bad = fmt.Sprintf("ID %q", c.ID)
		case c.Phase != Down && c.Phase != Running && c.Phase != Waiting:
			bad = fmt.Sprintf("Phase %d", c.Phase)
		case c.Run > v.LastRun:
			bad = fmt.Sprintf("Run %d", c.Run)
		case c.End > Failed:
			bad = fmt.Sprintf("End %d", c.End)
		case c.Exited && !late[c.Key]:
			bad = "Exited, and nothing is Deferred"
		case c.Failures < 0:
			bad = fmt.Sprintf("Failures %d", c.Failures)
		}
		if bad != "" {
			return fmt.Errorf("child %d: %s", i, bad)
		}
		keys[c.Key], ids[c.ID] = true, true
	}
	if !slices.IsSorted(v.Window) {
		return fmt.Errorf("Window %v", v.Window)
	}
	return nil
}

// Fate is what becomes of a child when another program goes on.
type Fate uint8

// The fates of a child.
const (
	Kept    Fate = iota // it goes on as it is: running, waiting for its restart, or down
	Added               // it is new: it is started
	Gone                // its spec is gone: it is stopped
	Changed             // it is something else now: it is stopped, and started
)

// String says what is done.
func (f Fate) String() string { return [...]string{"keep", "start", "stop", "restart"}[f] }

// Heir is a child of the next program, or one of the former whose spec is gone.
type Heir struct {
	Params Params
	Fate   Fate
	Was    Child // not for Added
	Lives  bool  // its instance lives on
}

// Runs reports whether its instance goes on.
func (h *Heir) Runs() bool { return h.Lives && h.Was.Phase == Running && !h.Was.Exited }

// Restore returns the state of a held supervisor that goes on from v with these children, in this
// order. Release stops those that are gone and run, and starts those that are new, or whose
// instance does not live on. v and the heirs are as Check wants them.
func Restore(v Saved, flags Flags, heirs []Heir) *State {
	s := New(flags, nil)
	s.LastRun, s.Window, s.LastUp, s.Excess = v.LastRun, slices.Clone(v.Window), v.LastUp, v.Excess
	var waits *Child                        // the first that waits for its restart
	was := make(map[Key]*Child, len(heirs)) // by the former key
	for i := range heirs {
		h := &heirs[i]
		if h.Fate == Gone && !h.Runs() {
			continue
		}
		// Keys are in the order of the children, as everywhere.
		if h.Fate != Added && h.Was.Key > s.LastKey {
			s.LastKey = h.Was.Key - 1
		} else {
			s.LastKey = v.LastKey
			v.LastKey++
		}
		c := s.inherit(h)
		if h.Fate != Added {
			was[h.Was.Key] = c
		}
		if c.Phase == Waiting && waits == nil {
			waits = c
		}
	}
	s.LastKey, s.Work, s.out = v.LastKey, HoldWork, nil
	for _, l := range v.Deferred {
		switch c := was[l.Key]; {
		case c == nil:
		case l.Timer && c.Phase == Waiting:
			s.Deferred = append(s.Deferred, Event{Kind: Timer, Key: c.Key})
		case !l.Timer && c.Exited:
			s.Deferred = append(s.Deferred, Event{Kind: Exited, Key: c.Key, Run: c.Run, End: c.End})
		}
	}
	if old := v.Flags.Strategy; waits != nil && (old == OneForAll || old == RestForOne) && !s.grouped() {
		// Its group waits with it, and would wait for ever.
		for _, c := range s.Children {
			c.Again = c.Again || c.Phase == Down && (old == OneForAll || c.Pos > waits.Pos)
		}
	}
	return s
}

// inherit makes the record of an heir.
func (s *State) inherit(h *Heir) *Child {
	c, w := s.add(h.Params), h.Was
	s.store(c)
	c.Run, c.Inc, c.Known, c.UpSince, c.Failures, c.Bound = w.Run, w.Inc, w.Known, w.UpSince, w.Failures, w.Bound
	phase := w.Phase
	switch {
	case h.Fate == Gone:
		c.Leaving, c.Restart, c.Significant = true, Temporary, false
	case h.Fate != Kept, w.Again, phase == Running && !w.Exited && !h.Lives:
		if c.Again = true; !h.Runs() {
			phase, c.Known = Down, false
		}
	case phase == Running: // if Exited, the end is in Deferred
		c.Exited, c.End = w.Exited, w.End
	case phase == Waiting:
		c.At, c.Counted = w.At, w.Counted
	}
	s.setPhase(c, phase)
	return c
}
