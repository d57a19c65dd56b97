package supervisor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// call is a request under way.
type call struct {
	rules.Call
	spec  ChildSpec
	reply chan callReply // has room for one
}

type callReply struct {
	child Child
	err   error
}

// StartChild adds a child at the end of the order and starts it. It returns
// when the child is up. The end of ctx ends the wait, not the start.
//
// To a Dynamic supervisor a copy of the template is added: of spec only ID and Start are looked at,
// each unless it is empty. Without an ID the copy is called by the template's ID and a number.
//
// Errors: ErrAlreadyStarted, ErrAlreadyPresent, a *StartError (the spec is not
// kept), *SpecError values joined, ErrStopped.
func (s *Supervisor) StartChild(ctx context.Context, spec ChildSpec) (Child, error) {
	if s.spec.Strategy == Dynamic {
		t := s.spec.Children[0]
		if spec.Start == nil {
			spec.Start = t.Start
		}
		t.ID, t.Start = spec.ID, spec.Start
		spec = t
	}
	v := validator{}
	check := spec
	if s.spec.Strategy == Dynamic && check.ID == "" {
		check.ID = s.spec.Children[0].ID
	}
	v.children(s.path, s.spec.AutoShutdown, []ChildSpec{check})
	if len(v.errs) > 0 {
		return Child{}, s.callError("StartChild", spec.ID, errors.Join(v.errs...))
	}
	return s.call(ctx, &call{Call: rules.Call{Op: rules.StartChild, ID: spec.ID, Params: spec.params()}, spec: spec})
}

// TerminateChild stops a child within its shutdown time and returns when it has ended. It is not
// restarted, though a restart of its group starts it again. Its spec is kept, but for a temporary
// child and for one of a Dynamic supervisor. A child that waits for its restart is not restarted; a
// start that is going on is cancelled. The end of ctx ends the wait only.
//
// It returns nil also if the child is not running. Errors: ErrNotFound,
// ErrStopped; ErrDynamic for an ID no child of a Dynamic supervisor ever had.
func (s *Supervisor) TerminateChild(ctx context.Context, id string) error {
	_, err := s.request(ctx, rules.TerminateChild, id)
	return err
}

// RestartChild starts a child whose spec is kept and that is not running. The
// end of ctx ends the wait, not the start.
//
// Errors: ErrRunning, ErrRestarting, ErrNotFound, a *StartError (the spec is
// kept), ErrDynamic, ErrStopped.
func (s *Supervisor) RestartChild(ctx context.Context, id string) (Child, error) {
	return s.request(ctx, rules.RestartChild, id)
}

// DeleteChild deletes the spec of a child that is not running.
//
// Errors: ErrRunning, ErrRestarting, ErrNotFound, ErrDynamic, ErrStopped.
func (s *Supervisor) DeleteChild(ctx context.Context, id string) error {
	_, err := s.request(ctx, rules.DeleteChild, id)
	return err
}

// WhichChildren returns the children in start order, without what is below
// them. OTP returns them in reverse. It does not wait. Error: ErrStopped.
func (s *Supervisor) WhichChildren(ctx context.Context) ([]Node, error) {
	v, err := s.read(ctx, "WhichChildren")
	if err != nil {
		return nil, err
	}
	nodes := make([]Node, 0, v.children.len())
	for c := range v.children.all() {
		nodes = append(nodes, c.node)
	}
	return nodes, nil
}

// CountChildren counts the children. It does not wait. Error: ErrStopped.
func (s *Supervisor) CountChildren(ctx context.Context) (Counts, error) {
	v, err := s.read(ctx, "CountChildren")
	if err != nil {
		return Counts{}, err
	}
	return v.node.Counts, nil
}

// ChildSpec returns the spec of a child. For a child of a Dynamic supervisor that is the template
// with the child's ID and Start. It is OTP's get_childspec. Errors: ErrNotFound, ErrStopped.
func (s *Supervisor) ChildSpec(ctx context.Context, id string) (ChildSpec, error) {
	v, err := s.read(ctx, "ChildSpec")
	if err != nil {
		return ChildSpec{}, err
	}
	for c := range v.children.all() {
		if c.spec.ID == id {
			return c.spec, nil
		}
	}
	return ChildSpec{}, s.callError("ChildSpec", id, ErrNotFound)
}

// read returns the latest snapshot of a supervisor that has not ended.
func (s *Supervisor) read(ctx context.Context, op string) (*view, error) {
	if err := ctx.Err(); err != nil {
		return nil, s.callError(op, "", err)
	}
	v := s.view.Load()
	if v.node.Status == Down {
		return nil, s.callError(op, "", ErrStopped)
	}
	return v, nil
}

// request sends a request that names a child by its ID alone.
func (s *Supervisor) request(ctx context.Context, op rules.Op, id string) (Child, error) {
	return s.call(ctx, &call{Call: rules.Call{Op: op, ID: id}})
}

// call sends a request and waits for its answer.
func (s *Supervisor) call(ctx context.Context, c *call) (Child, error) {
	c.reply = make(chan callReply, 1)
	reply := callReply{err: ErrStopped}
	if s.inbox.post(message{kind: rules.Request, call: c}) {
		select {
		case reply = <-c.reply:
		case <-ctx.Done():
			reply.err = ctx.Err()
		}
	}
	if reply.err != nil {
		return reply.child, s.callError(c.Op.String(), c.ID, reply.err)
	}
	return reply.child, nil
}

func (s *Supervisor) callError(op, id string, err error) error {
	return &CallError{Op: op, Path: s.path, ID: id, Err: err}
}

// resolveKey sets the key of a Dynamic supervisor's child. The rules know such children
// by key alone, so it answers requests itself whose ID has no key, and returns false.
func (l *loop) resolveKey(c *call) bool {
	if l.ids == nil {
		return true
	}
	key, here := l.ids[c.ID]
	c.Key = key
	switch {
	case c.Op == rules.StartChild && here:
		l.answers = append(l.answers, pendingReply{c, callReply{err: ErrAlreadyStarted}})
		return false
	case c.Op == rules.TerminateChild && !here && l.issued(c.ID):
		l.answers = append(l.answers, pendingReply{c, callReply{}})
		return false
	}
	return true
}

// issued reports whether this supervisor generated id.
func (l *loop) issued(id string) bool {
	n, ok := strings.CutPrefix(id, l.s.spec.Children[0].ID+"-")
	if !ok {
		return false
	}
	key, err := strconv.ParseUint(n, 10, 64)
	return err == nil && key > 0 && rules.Key(key) <= l.state.LastKey
}

// addChild makes the driver's record of a child that StartChild added.
func (l *loop) addChild(e *rules.Effect) *childRecord {
	spec := l.calls[e.From].spec
	if spec.ID == "" {
		spec.ID = fmt.Sprintf("%s-%d", l.s.spec.Children[0].ID, e.Key)
	}
	child := l.newChild(e.Key, spec)
	e.Inc = l.incarnation(child) + 1
	if l.ids != nil {
		l.ids[spec.ID] = e.Key
	}
	return child
}

// answer translates an answer of the rules.
func (l *loop) answer(e *rules.Effect) {
	c := l.calls[e.From]
	delete(l.calls, e.From)
	var r callReply
	if child := l.children[e.Key]; child != nil {
		r.child = Child{Path: child.path, ID: child.spec.ID, Incarnation: l.incarnation(child), Info: child.info}
	}
	switch e.Reply {
	case rules.OK:
	case rules.OKUndefined:
		r.child.Undefined = true
	case rules.AlreadyStarted:
		r.err = ErrAlreadyStarted
	case rules.AlreadyPresent:
		r.err = ErrAlreadyPresent
	case rules.NotFound:
		r.err = ErrNotFound
	case rules.IsRunning:
		r.err = ErrRunning
	case rules.IsRestarting:
		r.err = ErrRestarting
	case rules.IsDynamic:
		r.err = ErrDynamic
	case rules.Failure:
		r.err = ErrStopped
		if child := l.children[e.Key]; child != nil {
			r.err = &StartError{Path: child.path, Err: child.startErr}
		}
	case rules.NoProc:
		r.err = ErrStopped
	}
	l.answers = append(l.answers, pendingReply{c, r})
}

// Turn returns nil once the goroutine of this supervisor, and those of all instances below
// it, have done what they were told before, and published it: it proves that none of them
// hangs. It returns the error of ctx if that ends first. A supervisor that has ended takes no
// part.
func (s *Supervisor) Turn(ctx context.Context) error {
	turned := make(chan struct{})
	told := func() { close(turned) } // once what came before is published
	if !s.inbox.post(message{do: func() { s.loop.actions = append(s.loop.actions, told) }}) {
		return nil
	}
	select {
	case <-turned:
	case <-s.done:
		return nil
	case <-ctx.Done():
		return s.callError("Turn", "", ctx.Err())
	}
	for c := range s.view.Load().children.all() {
		if c.inst == nil {
			continue
		}
		if err := c.inst.Turn(ctx); err != nil {
			return err
		}
	}
	return nil
}
