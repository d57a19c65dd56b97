package supervisor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// savedTree is what State returns, as CBOR. The zero value of a field that is added later must mean
// what was before it.
type savedTree struct {
	Supervisors []savedSupervisor // those above others first
}

type savedSupervisor struct {
	Path     string
	Epoch    time.Duration // when its own time began, by the clock that goes on over an exec
	Began    rules.Time    // this and all times below are of its own time
	Held     rules.Time
	Rules    rules.Saved
	Children []savedChild `cbor:",omitempty"` // in their order
}

type savedChild struct {
	Rules    rules.Child
	ID       string
	Kind     string
	Status   Status       `cbor:",omitempty"`
	Since    rules.Time   // of Status
	Began    rules.Time   `cbor:",omitempty"`
	LastExit *savedReason `cbor:",omitempty"`
	StartErr string       `cbor:",omitempty"`
}

// savedReason is a Reason, with the text of its values.
type savedReason struct {
	Reason
	Cause, Value string `cbor:",omitempty"`
}

// decoding refuses what no writer writes, and ignores fields that a later release writes.
var decoding = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden,
		MaxArrayElements: 1 << 24, MaxNestedLevels: 16,
	}.DecMode()
	if err != nil {
		panic(err) // the options are constant
	}
	return m
}()

// State returns what the next image of the program needs to go on with this supervisor and those
// below it: states, budgets, delays, incarnations, reasons; for [Restore]. Suspend must have
// returned, and Resume not been called. What has been told to a supervisor before is in its state;
// so what tells it something, as an instance that ends, is to be quiet by then.
//
// Calls that wait are not in it, nor are subscriptions: they end with this image. Nor is what
// leaked here. Errors: ErrStopped if one was told to end meanwhile, ErrNotSuspended.
func (s *Supervisor) State() ([]byte, error) {
	var v savedTree
	all := s.tree.below(s.path)
	if len(all) == 0 {
		return nil, s.callError("State", "", ErrStopped)
	}
	for _, b := range all {
		saved, err := &savedSupervisor{}, error(nil)
		done := make(chan struct{})
		if b.inbox.post(message{do: func() { err = b.loop.save(saved); close(done) }}) {
			select {
			case <-done:
			case <-b.done:
				err = ErrStopped
			}
		} else {
			err = ErrStopped
		}
		if err != nil {
			return nil, s.callError("State", "", fmt.Errorf("%s: %w", b.path, err))
		}
		v.Supervisors = append(v.Supervisors, *saved)
	}
	return cbor.Marshal(v)
}

func (l *loop) save(v *savedSupervisor) error {
	rulesState, children, ok := l.state.Save()
	switch {
	case l.state.Work == rules.StopWork:
		return ErrStopped
	case !ok || l.hold == nil || !l.hold.parted:
		return ErrNotSuspended
	}
	s := l.s
	*v = savedSupervisor{
		Path: s.path, Epoch: s.cfg.sinceBoot() - l.now.Sub(s.epoch), Rules: rulesState,
		Began: s.rulesTime(l.began), Held: s.rulesTime(l.heldAt), Children: make([]savedChild, len(children)),
	}
	for i := range children {
		child := l.children[children[i].Key]
		c := &v.Children[i]
		*c = savedChild{
			Rules: children[i], ID: child.spec.ID, Kind: child.spec.making(), Status: status(l.state, l.state.Children[child.key]),
			Since: s.rulesTime(child.since), Began: s.rulesTime(child.began),
		}
		if c.Status != child.status {
			c.Since = s.rulesTime(l.now)
		}
		if child.startErr != nil {
			c.StartErr = firstLine(child.startErr.Error())
		}
		if child.exited {
			r := &savedReason{Reason: child.reason}
			r.Stack = Cut(r.Stack)
			if r.Reason.Cause != nil {
				r.Cause, r.Reason.Cause = firstLine(r.Reason.Cause.Error()), nil
			}
			if r.Reason.Value != nil {
				r.Value, r.Reason.Value = firstLine(fmt.Sprint(r.Reason.Value)), nil
			}
			c.LastExit = r
		}
	}
	return nil
}

// decodeTree returns the supervisors of a state, by path.
func decodeTree(state []byte) (map[string]*savedSupervisor, error) {
	var v savedTree
	if err := decoding.Unmarshal(state, &v); err != nil {
		return nil, fmt.Errorf("supervisor: state: %w", err)
	}
	all := make(map[string]*savedSupervisor, len(v.Supervisors))
	for i := range v.Supervisors {
		s := &v.Supervisors[i]
		children := make([]rules.Child, len(s.Children))
		ids := make(map[string]bool, len(s.Children))
		err := error(nil)
		for j, c := range s.Children {
			children[j] = c.Rules
			if c.ID == "" || ids[c.ID] {
				err = fmt.Errorf("child %d: ID %q", j, c.ID)
			}
			ids[c.ID] = true
		}
		if err = cmp.Or(err, s.Rules.Check(children)); err != nil {
			return nil, fmt.Errorf("supervisor: state: %s: %w", s.Path, err)
		}
		all[s.Path] = s
	}
	return all, nil
}

// heir is a child of a supervisor by another spec, or one whose spec is gone.
type heir struct {
	rules.Heir
	spec ChildSpec
	was  *savedChild // nil: it is new
	inst Instance    // that lives on
}

// heirs returns what becomes of the children of a supervisor by another spec: first those of the
// spec, in its order, then those whose spec is gone.
func (v *savedSupervisor) heirs(spec Spec) (heirs []heir) {
	old := make(map[string]*savedChild, len(v.Children))
	for i := range v.Children {
		old[v.Children[i].ID] = &v.Children[i]
	}
	declared := spec.Children
	if spec.Strategy == Dynamic {
		declared = nil
		for i := range v.Children {
			if c := spec.Children[0]; c.making() == v.Children[i].Kind {
				c.ID = v.Children[i].ID
				declared = append(declared, c)
			}
		}
	}
	for _, c := range declared {
		h := heir{Heir: rules.Heir{Params: c.params(), Fate: rules.Added}, spec: c, was: old[c.ID]}
		if h.was != nil {
			h.Was, h.Fate = h.was.Rules, rules.Kept
			if h.was.Kind != c.making() {
				h.Fate = rules.Changed
			}
			delete(old, c.ID)
		}
		heirs = append(heirs, h)
	}
	for i := range v.Children {
		if c := &v.Children[i]; old[c.ID] != nil {
			p := c.Rules.Params
			heirs = append(heirs, heir{
				Heir: rules.Heir{Params: p, Fate: rules.Gone, Was: c.Rules}, was: c,
				spec: ChildSpec{ID: c.ID, Kind: c.Kind, Restart: Temporary, Shutdown: p.Shutdown},
			})
		}
	}
	return heirs
}

// Plan tells in words what Restore makes of a state by the specs of another program: a line for
// each difference of a supervisor, and one for each child. spec returns the spec of the supervisor
// at a path of the state; false leaves its children to others.
func Plan(state []byte, spec func(path string) (Spec, bool)) ([]string, error) {
	all, err := decodeTree(state)
	if err != nil {
		return nil, err
	}
	var lines []string
	for _, path := range slices.Sorted(maps.Keys(all)) {
		if next, ok := spec(path); ok {
			lines = append(lines, all[path].plan(next)...)
		}
	}
	return lines, nil
}

func (v *savedSupervisor) plan(next Spec) (lines []string) {
	differ := func(what, was, is string) {
		if was != is {
			lines = append(lines, fmt.Sprintf("%s: %s was %s, is %s", v.Path, what, was, is))
		}
	}
	was, is := v.Rules.Flags, next.flags()
	differ("strategy", Strategy(was.Strategy).String(), Strategy(is.Strategy).String())
	differ("intensity", fmt.Sprintf("%d in %v", was.Max, was.Period), fmt.Sprintf("%d in %v", is.Max, is.Period))
	if was.Backoff != is.Backoff {
		lines = append(lines, v.Path+": the back-off is another")
	}
	heirs := v.heirs(next)
	var before, after []string
	for _, h := range heirs {
		if h.Fate == rules.Kept {
			after = append(after, h.spec.ID)
		}
	}
	for _, c := range v.Children {
		if slices.Contains(after, c.ID) {
			before = append(before, c.ID)
		}
	}
	differ("order", strings.Join(before, ", "), strings.Join(after, ", "))
	for _, h := range heirs {
		if h.Fate == rules.Kept && h.Was.Again {
			lines = append(lines, fmt.Sprintf("%v %s/%s: it does not outlive the program", rules.Changed, v.Path, h.spec.ID))
			continue
		}
		line := fmt.Sprintf("%v %s/%s", h.Fate, v.Path, h.spec.ID)
		switch h.Fate {
		case rules.Changed:
			line += fmt.Sprintf(": was %s, is %s", h.was.Kind, h.spec.making())
		case rules.Kept:
			if a, b := settings(h.Was.Params), settings(h.Params); a != b {
				line += fmt.Sprintf(": was %s, is %s", a, b)
			}
		case rules.Added, rules.Gone:
			line += ": " + h.spec.making()
		}
		lines = append(lines, line)
	}
	return lines
}

// settings tells what a child's spec says of its life.
func settings(p rules.Params) string {
	text := fmt.Sprintf("%v, shutdown %v", Restart(p.Restart), p.Shutdown)
	if p.Shutdown == Infinity {
		text = fmt.Sprintf("%v, shutdown infinity", Restart(p.Restart))
	} else if p.Shutdown == BrutalKill {
		text = fmt.Sprintf("%v, brutal kill", Restart(p.Restart))
	}
	if p.Significant {
		text += ", significant"
	}
	return text
}

// Restore makes the tree whose State another image of the program has returned, by the specs of
// this one. It does nothing yet: no child is started or stopped, no delay ends, no call is
// answered. Resume sets it going. Until then the tree can be dropped, and the state given to
// another image.
//
// A supervisor at the path of one of the state goes on with its restarts in the window, back-off
// and counts: its Starter is called with Incarnation.Restored. For each other child that runs,
// adopt returns the instance that lives on, or nil; it may have ended meanwhile. A child without
// one is started by Resume, with nothing counted; one of a Dynamic supervisor, whose Start may have
// been the caller's, is gone.
//
// Where the specs differ from those of the image before: settings and order are this program's at
// once; a child that is new is started by Resume, in order; one whose spec is gone, or that has
// another Kind, is stopped before, last started first, as adopt's instance. One that was down, or
// waits for its restart, stays so. A start that fails by then is tried again as after a crash.
//
// ctx is as for Start. On an error nothing is left, and adopted instances are the caller's.
func Restore(ctx context.Context, state []byte, spec Spec, cfg Config, adopt func(path string) Instance) (*Supervisor, error) {
	if err := Validate(spec); err != nil {
		return nil, err
	}
	saved, err := decodeTree(state)
	if err != nil {
		return nil, err
	}
	s := newSupervisor(ctx, spec, cfg.withDefaults(), cmp.Or(spec.Name, defaultName), nil)
	s.tree.saved, s.tree.adopt = saved, adopt
	if err := s.restore(ctx); err != nil {
		return nil, err
	}
	s.tree.saved, s.tree.adopt = nil, nil
	return s, nil
}

// restore makes s of its saved state.
func (s *Supervisor) restore(context.Context) error {
	t := s.tree
	v := t.saved[s.path]
	if v == nil {
		return &StartError{Path: s.path, Err: errors.New("it is not in the state")}
	}
	delete(t.saved, s.path)
	age := s.cfg.sinceBoot() - v.Epoch
	if age < 0 {
		return &StartError{Path: s.path, Err: fmt.Errorf("state: Epoch is %v ahead of the clock", -age)}
	}
	s.epoch = s.epoch.Add(-age)
	l := &s.loop
	l.init(s)
	l.now, l.began, l.heldAt = s.cfg.Clock.Now(), s.timeOf(v.Began), s.timeOf(v.Held)
	heirs := v.heirs(s.spec)
	ofRules := make([]rules.Heir, len(heirs))
	for i := range heirs {
		h := &heirs[i]
		if err := s.adopt(h); err != nil {
			return err
		}
		h.Lives = h.inst != nil
		if h.was != nil && !h.Lives && h.Was.Phase != rules.Waiting && !h.Was.Exited && s.spec.Strategy == Dynamic {
			h.Fate = rules.Gone
		}
		ofRules[i] = h.Heir
	}
	l.state = rules.Restore(v.Rules, s.spec.flags(), ofRules)
	l.views, l.children, l.dirty = persistentMap[childView]{}, make(map[rules.Key]*childRecord), nil
	for i := range heirs {
		h := &heirs[i]
		key := h.Was.Key
		if l.ids == nil {
			key = l.state.IDs[h.spec.ID]
		}
		c := l.state.Children[key]
		if c == nil {
			continue // it is gone, and did not run
		}
		child := l.newChild(key, h.spec)
		if l.ids != nil {
			l.ids[h.spec.ID] = key
		}
		if child.status = status(l.state, c); h.was != nil {
			l.inherit(child, h.was)
		}
		if h.Runs() {
			child.inst, child.run, child.info = h.inst, c.Run, h.inst.Info()
		}
		l.timers.set(child, c.At)
	}
	l.publish()
	close(s.allUp)
	t.restored = append(t.restored, s)
	return nil
}

// adopt finds the instance of a child that ran: that of a supervisor is made, any other lives on.
func (s *Supervisor) adopt(h *heir) error {
	t, path := s.tree, s.path+"/"+h.spec.ID
	switch {
	case h.was == nil || h.Was.Phase != rules.Running || h.Was.Exited:
	case h.Fate == rules.Kept && t.saved[path] != nil:
		m := message{kind: rules.StartFailed, err: errGoexit}
		callStart(s.childCtx, h.spec.Start, Incarnation{Path: path, ID: h.spec.ID, N: h.Was.Inc, Restored: true}, &m)
		if m.kind != rules.Started {
			return &StartError{Path: path, Err: cmp.Or(m.err, ErrIgnore)}
		}
		h.inst = m.inst
	case t.adopt != nil:
		h.inst = t.adopt(path)
	}
	return nil
}

// inherit gives a child's record what was known of it.
func (l *loop) inherit(child *childRecord, was *savedChild) {
	child.began = l.s.timeOf(was.Began)
	if was.Status == child.status {
		child.since = l.s.timeOf(was.Since)
	}
	if r := was.LastExit; r != nil {
		child.reason, child.exited = r.Reason, true
		if r.Cause != "" {
			child.reason.Cause = errors.New(r.Cause)
		}
		if r.Value != "" {
			child.reason.Value = r.Value
		}
	}
	if was.StartErr != "" {
		child.startErr = errors.New(was.StartErr)
	}
}

// watchAll watches the instances that were adopted.
func (l *loop) watchAll() {
	for key, child := range l.children {
		if child.inst != nil {
			watch(&l.s.inbox, key, child.run, child.inst)
		}
	}
}
