package coppice

import (
	"context"
	"path"
	"strings"
	"sync"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
)

// departures are the pools that have ended, until it is known of each whether it is started again.
// Until then its clients wait in the backlog; a pool that is gone for good closes its sockets.
type departures struct {
	mu  sync.Mutex
	all map[string]*departure // by path
}

// departure is one pool that has ended.
type departure struct {
	cancel context.CancelFunc
	over   chan struct{} // closed when it is decided
}

// begin waits, on another goroutine, until the pool at a path is gone for good, and calls gone
// then. The pool's next start ends the wait.
func (d *departures) begin(tree *supervisor.Supervisor, path string, gone func()) {
	ctx, cancel := context.WithCancel(context.Background())
	now := &departure{cancel: cancel, over: make(chan struct{})}
	d.mu.Lock()
	if d.all == nil {
		d.all = map[string]*departure{}
	}
	d.all[path] = now
	d.mu.Unlock()
	go func() { // ends with the decision, with the tree at the latest; end and wait wait for it
		defer close(now.over)
		defer cancel()
		if awaitGone(ctx, tree, path) {
			gone()
		}
		d.mu.Lock()
		if d.all[path] == now {
			delete(d.all, path)
		}
		d.mu.Unlock()
	}()
}

// end ends the wait for a pool, which is started again.
func (d *departures) end(path string) {
	d.mu.Lock()
	now := d.all[path]
	d.mu.Unlock()
	if now != nil {
		now.cancel()
		<-now.over
	}
}

// wait waits until all is decided, at the end of the tree.
func (d *departures) wait() {
	d.mu.Lock()
	var over []chan struct{}
	for _, now := range d.all {
		over = append(over, now.over)
	}
	d.mu.Unlock()
	for _, c := range over {
		<-c
	}
}

// awaitGone waits until the child at a path, which has ended, is gone for good; it returns false if
// ctx ends first.
func awaitGone(ctx context.Context, tree *supervisor.Supervisor, path string) bool {
	const enough = 256 // each lost event leads to another look
	sub := tree.Subscribe(enough)
	defer sub.Close()
	for {
		if isGone(tree.Snapshot(), path) {
			return ctx.Err() == nil
		}
		for {
			ev, err := sub.Next(ctx)
			if ctx.Err() != nil {
				return false
			}
			if err != nil || ev.Lost > 0 || decides(ev.Path, path) {
				break // an error: the tree has ended, and the next snapshot says so
			}
		}
	}
}

// decides reports whether an event of the child at a path in the tree may decide what becomes of
// the child at another: it is that child, one above it, or a sibling of these.
func decides(event, child string) bool {
	return event == childproto.MasterName || strings.HasPrefix(childproto.MasterName+"/"+child, path.Dir(event)+"/")
}

// isGone reports whether the child at a path, which has ended, is not started again: it has no
// place any more, or nothing runs in it or above it and nothing will. While its end has yet to
// reach its supervisor, the snapshot shows it as it was.
func isGone(root supervisor.Node, at string) bool {
	if root.Status == supervisor.Stopping || root.Status == supervisor.Down {
		return true
	}
	up := root
	for at != "" {
		id, rest, _ := strings.Cut(at, "/")
		n := up.Find(id)
		switch {
		case n == nil:
			return true // it was temporary
		case n.Status == supervisor.Down:
			return !inGroupRestart(up)
		case n.Status == supervisor.Stopping && n.Restart == supervisor.Temporary:
			return true
		case n.Status != supervisor.Running:
			return false
		}
		up, at = *n, rest
	}
	return false
}

// inGroupRestart reports whether a supervisor may be restarting a group of its children. They are
// down, but one, until their turn comes.
func inGroupRestart(n supervisor.Node) bool {
	if n.Strategy != supervisor.OneForAll && n.Strategy != supervisor.RestForOne {
		return false
	}
	for _, c := range n.Children {
		if c.Status == supervisor.Restarting || c.Status == supervisor.Stopping {
			return true
		}
	}
	return false
}
