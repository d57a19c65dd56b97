package coppice

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/declaration"
	"github.com/coppice-go/coppice/supervisor"
)

// node is a child spec at its place in the tree. Its children come and go while the tree runs;
// every goroutine may read them at any time.
type node struct {
	path     string // names joined by slashes; "" = the root
	spec     ChildSpec
	declared []*node // the children in its spec

	now      atomic.Pointer[[]*node]             // the children that it has now; nil = declared
	instance atomic.Pointer[supervisor.Instance] // of a Supervisor and a Process: the latest
	starts   atomic.Int64                        // by startNode
}

// children returns the children that n has now. The caller must not change them.
func (n *node) children() []*node {
	if now := n.now.Load(); now != nil {
		return *now
	}
	return n.declared
}

// replace takes the children out of which is holds, and adds others at the end.
func (n *node) replace(is func(*node) bool, by ...*node) {
	for {
		old := n.now.Load()
		now := n.declared
		if old != nil {
			now = *old
		}
		now = append(slices.DeleteFunc(slices.Clone(now), is), by...)
		if n.now.CompareAndSwap(old, &now) {
			return
		}
	}
}

// put adds a child that starts, in the place of one of its name that is gone.
func (n *node) put(c *node) { n.replace(func(o *node) bool { return o.path == c.path }, c) }

// remove takes out a child that is gone.
func (n *node) remove(c *node) { n.replace(func(o *node) bool { return o == c }) }

// keeping returns s for the child of n: as it starts, it has the children of its spec again, and n
// has its instance.
func (n *node) keeping(s supervisor.Starter) supervisor.StarterFunc {
	return func(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
		n.now.Store(nil)
		i, err := s.Start(ctx, inc)
		if err == nil {
			n.instance.Store(&i)
		}
		return i, err
	}
}

// running returns the latest instance of n, a Supervisor or a Process; nil if it never had one.
func (n *node) running() supervisor.Instance {
	if i := n.instance.Load(); i != nil {
		return *i
	}
	return nil
}

// reserves reports whether a name is the tree's own, which no child may register: the name of the
// master, of the listener process or of a child of the root n, or a name below it.
func (n *node) reserves(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	switch first {
	case childproto.MasterName, childproto.ListenersName, childproto.ListenerName:
		return true
	}
	return slices.ContainsFunc(n.children(), func(c *node) bool { return c.path == first })
}

// pool returns the path of the pool at path; "" means the first pool. If there is none, it returns
// "".
func (n *node) pool(path string) string {
	if p, ok := n.spec.(Pool); ok && (path == "" && !p.ofHost || path == n.path) {
		return n.path
	}
	for _, c := range n.children() {
		if at := c.pool(path); at != "" {
			return at
		}
	}
	return ""
}

// listens reports whether a node at or below n may need a listener.
func (n *node) listens() bool {
	switch n.spec.(type) {
	case Pool, ListenerSpec:
		return true
	}
	return slices.ContainsFunc(n.children(), (*node).listens)
}

// find returns the node at path, or nil.
func (n *node) find(path string) *node {
	if n.path == path && path != "" {
		return n
	}
	for _, c := range n.children() {
		if f := c.find(path); f != nil {
			return f
		}
	}
	return nil
}

// lines returns the lines of the children in what the program declares.
func (n *node) lines() []string {
	var out []string
	if n.path != "" {
		out = append(out, declaration.Of(n.path, n.spec, "Name", "Children")...)
	}
	if l, ok := n.spec.(ListenerSpec); ok {
		out = append(out, l.functionLines(n.path)...)
	}
	for _, c := range n.children() {
		out = append(out, c.lines()...)
	}
	return out
}

// functionLines returns the lines of the functions that the listener process calls.
func (l ListenerSpec) functionLines(path string) (lines []string) {
	for field, has := range map[string]bool{"Hooks.Picker": l.Hooks.Picker != nil, "Hooks.Key": l.Hooks.Key != nil, "Hooks.First": l.Hooks.First != nil, "Hooks.PoisonKey": l.Hooks.PoisonKey != nil} {
		if has {
			lines = append(lines, declaration.Line(path, field, "func"))
		}
	}
	slices.Sort(lines)
	return lines
}

// needed returns the lines of what the processes of the tree must find in their program: the pools
// of processes, or the functions that these name, and the functions of listeners if the listener
// process calls them.
func (n *node) needed(listener Isolation) (lines []string) {
	switch s := n.spec.(type) {
	case Pool:
		switch {
		case s.Isolation != ProcessIsolation, s.Command != nil:
		case s.Function != "":
			lines = append(lines, functionLine(s.Function))
		default:
			lines = append(lines, declaration.Line(n.path, declaration.Is, "Pool"))
		}
	case ListenerSpec:
		if listener == ProcessIsolation {
			lines = s.functionLines(n.path)
		}
	}
	for _, c := range n.children() {
		lines = append(lines, c.needed(listener)...)
	}
	return lines
}

// listeners returns the names of the listener specs below n.
func (n *node) listeners() (names []string) {
	if l, ok := n.spec.(ListenerSpec); ok {
		names = append(names, l.Name)
	}
	for _, c := range n.children() {
		names = append(names, c.listeners()...)
	}
	return names
}

// requests returns what the listener specs below n ask for.
func (n *node) requests() (rs []netactor.Request) {
	if l, ok := n.spec.(ListenerSpec); ok {
		rs = append(rs, l.request())
	}
	for _, c := range n.children() {
		rs = append(rs, c.requests()...)
	}
	return rs
}

// listenRules returns what the workers of the pool at path may ask for.
func (n *node) listenRules(path string) ListenRules {
	if at := n.find(path); at != nil {
		if p, ok := at.spec.(Pool); ok {
			less := p.Environment.trustedLess()
			return p.Listen.Or(ListenRules{Any: !less, None: less})
		}
	}
	return ListenRules{None: true}
}

// sandbox returns the walls of the processes of n, and what its workers may listen on, if not on
// anything.
func (n *node) sandbox() string {
	switch s := n.spec.(type) {
	case Process:
		return s.Environment.Sandbox.String()
	case Pool:
		rules := n.listenRules(n.path)
		if rules.Any {
			return s.Environment.Sandbox.String()
		}
		listen := []string{"tree"}
		for _, r := range rules.Allow {
			at := strings.TrimRight(r.Network+":"+r.Address+":"+r.Ports, ":")
			if r.FD != 0 {
				at = fmt.Sprintf("fd:%d", r.FD)
			}
			listen = append(listen, at)
		}
		return strings.TrimSpace(s.Environment.Sandbox.String() + " listen(" + strings.Join(listen, " ") + ")")
	}
	return ""
}

// functions returns the user's functions of the listener spec at path in the tree.
func (n *node) functions(path string) netactor.Functions {
	if at := n.find(path); at != nil {
		if l, ok := at.spec.(ListenerSpec); ok {
			return l.Hooks
		}
	}
	return netactor.Functions{}
}
