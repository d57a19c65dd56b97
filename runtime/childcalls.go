package coppice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/coppice-go/coppice/supervisor"
)

// StartChild adds a child to a [Supervisor] of the tree while it runs, behind its other children,
// and starts it. It returns when the child is up: a pool with all its workers. parent is the path
// of the Supervisor; "" is the root. This call and the three below are OTP's, as package supervisor
// has them: a child that is added is lost when its Supervisor is restarted, which starts with the
// children of its spec. The end of ctx ends the wait, not the start. While the tree itself starts
// they wait for it.
//
// The spec is one that Start would take, with these limits. A Pool of processes names its function
// by Pool.Function, and has neither Prepare nor Liveness.Check, because its workers run this
// program from the beginning and have no such Pool in their tree. A ListenerSpec has no Hooks. A
// reload to a program that has not registered a function that the tree runs fails.
//
// Errors: [InvalidError], joined; supervisor.ErrNotFound for the parent; ErrAlreadyStarted or
// ErrAlreadyPresent for a name that is taken; ErrStopped when the tree or the parent is ending; and
// why the child did not start: then it is not kept.
func (rt *Runtime) StartChild(ctx context.Context, parent string, spec ChildSpec) error {
	if forDebugger() && spec != nil {
		spec = inGoroutines([]ChildSpec{spec})[0]
	}
	n, err := rt.parseChild(parent, spec)
	if err != nil {
		return err
	}
	at, up, err := rt.supervisorAt(ctx, parent)
	if err == nil {
		err = toTheEnd(ctx, func(ctx context.Context) error { return rt.startNode(ctx, at, up, n) })
	}
	return callError("start child", n.path, err)
}

// parseChild validates a spec that is to be added below a parent, and returns its tree.
func (rt *Runtime) parseChild(parent string, spec ChildSpec) (*node, error) {
	var errs []error
	bad := func(path, field string, value any, why string) {
		errs = append(errs, &InvalidError{path, field, value, why})
	}
	nodes := validateChildren(bad, parent, []ChildSpec{spec})
	for _, n := range nodes {
		n.checkAdded(bad)
	}
	whole := &node{declared: append(nodes, rt.root)}
	for _, n := range nodes {
		n.checkListeners(bad, whole.listenerSpecs())
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return nodes[0], whole.checkDescriptors(rt.cfg.ListenerIsolation)
}

// checkAdded checks what only a tree from its start can have: functions that other processes find
// by their place in it.
func (n *node) checkAdded(bad reportInvalid) {
	const place = "is found by processes in the tree of their own program, which has no such child"
	switch s := n.spec.(type) {
	case Pool:
		if s.Isolation != ProcessIsolation || s.Command != nil {
			break
		}
		if s.Worker != nil {
			bad(n.path, "Worker", "func", place+": register it by RegisterFunction, and set Function")
		}
		if s.Prepare != nil {
			bad(n.path, "Prepare", "func", place)
		}
		if s.Liveness.Check != nil {
			bad(n.path, "Liveness.Check", "func", place)
		}
	case ListenerSpec:
		if s.hasFunctions() {
			bad(n.path, "Hooks", "func", place)
		}
	}
	for _, c := range n.declared {
		c.checkAdded(bad)
	}
}

// supervisorAt returns the node of the Supervisor at a path, and the Supervisor, once the tree has
// started.
func (rt *Runtime) supervisorAt(ctx context.Context, path string) (*node, *supervisor.Supervisor, error) {
	select {
	case <-rt.up:
	case <-rt.ended:
	case <-ctx.Done():
	}
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	at := rt.root
	if path != "" {
		at = rt.root.find(path)
	}
	if at == nil {
		return nil, nil, fmt.Errorf("%q: %w", path, supervisor.ErrNotFound)
	}
	up, ok := at.running().(*supervisor.Supervisor)
	switch {
	case rt.ending():
		return nil, nil, supervisor.ErrStopped
	case !ok:
		return nil, nil, fmt.Errorf("%q: %w", path, supervisor.ErrNotFound)
	}
	return at, up, nil
}

// childAt returns a child at a path, its parent, and the parent's Supervisor.
func (rt *Runtime) childAt(ctx context.Context, path string) (n, at *node, up *supervisor.Supervisor, err error) {
	parent, _ := splitPath(path)
	if at, up, err = rt.supervisorAt(ctx, parent); err != nil {
		return nil, nil, nil, err
	}
	if n = rt.root.find(path); n == nil {
		return nil, nil, nil, supervisor.ErrNotFound
	}
	return n, at, up, nil
}

// splitPath returns the path of a child's parent, and the child's name.
func splitPath(path string) (parent, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
}

// startNode starts a node that is not in the tree yet. The supervisor decides whether it can be
// there: the node is put into the tree as its start begins, before something looks for it.
func (rt *Runtime) startNode(ctx context.Context, at *node, up *supervisor.Supervisor, n *node) error {
	for _, c := range rt.ownSpecs(n) {
		if _, err := rt.tree.StartChild(ctx, c); err != nil && !errors.Is(err, supervisor.ErrAlreadyStarted) {
			return err
		}
	}
	awaited := make(chan struct{})
	defer close(awaited)
	spec := rt.childSpec(n, awaited)
	first, start := sync.OnceFunc(func() {
		rt.sizes.forget(n.path)
		n.starts.Add(1)
		at.put(n)
	}), spec.Start
	spec.Start = supervisor.StarterFunc(func(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
		first()
		i, err := start.Start(ctx, inc)
		if err == nil && spec.Restart == supervisor.Temporary {
			start := n.starts.Load()
			go func() { // ends with the child, which only startNode starts again
				<-i.Done()
				at.replace(func(o *node) bool { return o == n && n.starts.Load() == start })
			}()
		}
		return i, err
	})
	_, err := up.StartChild(ctx, spec)
	if _, failed := errors.AsType[*supervisor.StartError](err); failed {
		at.remove(n)
	}
	return err
}

// TerminateChild stops the child at a path within its Shutdown time, and returns when it has ended.
// It stays down, but for a restart of its group, until RestartChild; a temporary child is gone. A
// pool drains, and its sockets are closed as those of a pool that ends for good. A listener is
// closed in every worker; the connections in its backlog are served first, if its policy hands over
// and workers take them. The end of ctx ends the wait only. A worker is no child: see Stop.
//
// Errors: supervisor.ErrNotFound, ErrStopped.
func (rt *Runtime) TerminateChild(ctx context.Context, path string) error {
	n, at, up, err := rt.childAt(ctx, path)
	if err == nil {
		err = toTheEnd(ctx, func(ctx context.Context) error { return rt.terminate(ctx, n, at, up) })
	}
	return callError("terminate child", path, err)
}

func (rt *Runtime) terminate(ctx context.Context, n, at *node, up *supervisor.Supervisor) error {
	if _, is := n.spec.(ListenerSpec); is {
		for _, s := range rt.sockets.Sockets() {
			if slices.Contains(s.Owners, n.path) {
				rt.sockets.Remove(s.Number) // also for the pools whose workers have it
			}
		}
	}
	if err := up.TerminateChild(ctx, n.spec.childName()); err != nil {
		return err
	}
	if _, err := up.ChildSpec(ctx, n.spec.childName()); errors.Is(err, supervisor.ErrNotFound) {
		at.remove(n)
	}
	return nil
}

// RestartChild starts the child at a path, which is not running, once more. A pool has the size
// that it had. The end of ctx ends the wait, not the start.
//
// Errors: supervisor.ErrRunning, ErrRestarting, ErrNotFound, ErrStopped, and why it did not start.
func (rt *Runtime) RestartChild(ctx context.Context, path string) error {
	n, _, up, err := rt.childAt(ctx, path)
	if err == nil {
		_, err = up.RestartChild(ctx, n.spec.childName())
	}
	return callError("restart child", path, err)
}

// DeleteChild deletes the child at a path, which is not running. Its name is free then.
//
// Errors: supervisor.ErrRunning, ErrRestarting, ErrNotFound, ErrStopped.
func (rt *Runtime) DeleteChild(ctx context.Context, path string) error {
	n, at, up, err := rt.childAt(ctx, path)
	if err == nil {
		err = up.DeleteChild(ctx, n.spec.childName())
	}
	if err == nil {
		at.remove(n)
		rt.sizes.forget(path)
	}
	return callError("delete child", path, err)
}

// callError returns the error of a call about the child at a path. That of a start names the child
// already.
func callError(call, path string, err error) error {
	if err == nil {
		return nil
	}
	if _, failed := errors.AsType[*supervisor.StartError](err); failed {
		return treeStartError(err)
	}
	if c, ok := errors.AsType[*supervisor.CallError](err); ok {
		err = c.Err
	}
	return &textError{fmt.Sprintf("coppice: %s %s: %s", call, path, strings.TrimPrefix(err.Error(), "coppice: ")), err}
}
