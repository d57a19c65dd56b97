package coppice

import (
	"slices"
	"strings"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/declaration"
)

// node is a child spec at its place in the tree.
type node struct {
	path     string // names joined by slashes; "" = the root
	spec     ChildSpec
	children []*node
}

// reserves reports whether a name is the tree's own, which no child may register: the name of the
// master, of the listener process or of a child of the root n, or a name below it.
func (n *node) reserves(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	switch first {
	case childproto.MasterName, childproto.ListenersName, childproto.ListenerName:
		return true
	}
	return slices.ContainsFunc(n.children, func(c *node) bool { return c.path == first })
}

// pool returns the path of the pool at path; "" means the first pool. If there is none, it returns
// "".
func (n *node) pool(path string) string {
	if _, ok := n.spec.(Pool); ok && (path == "" || path == n.path) {
		return n.path
	}
	for _, c := range n.children {
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
	return slices.ContainsFunc(n.children, (*node).listens)
}

// find returns the node at path, or nil.
func (n *node) find(path string) *node {
	if n.path == path && path != "" {
		return n
	}
	for _, c := range n.children {
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
	for _, c := range n.children {
		out = append(out, c.lines()...)
	}
	return out
}

// functionLines returns the lines of the functions that the listener process calls.
func (l ListenerSpec) functionLines(path string) (lines []string) {
	for field, has := range map[string]bool{"Hooks.Picker": l.Hooks.Picker != nil, "Hooks.Key": l.Hooks.Key != nil, "Hooks.First": l.Hooks.First != nil} {
		if has {
			lines = append(lines, declaration.Line(path, field, "func"))
		}
	}
	slices.Sort(lines)
	return lines
}

// needed returns the lines of what the processes of the tree must find in their program: the pools
// of processes, and the functions of listeners if the listener process calls them.
func (n *node) needed(listener Isolation) (lines []string) {
	switch s := n.spec.(type) {
	case Pool:
		if s.Isolation == ProcessIsolation {
			lines = append(lines, declaration.Line(n.path, declaration.Is, "Pool"))
		}
	case ListenerSpec:
		if listener == ProcessIsolation {
			lines = s.functionLines(n.path)
		}
	}
	for _, c := range n.children {
		lines = append(lines, c.needed(listener)...)
	}
	return lines
}

// listeners returns the names of the listener specs below n.
func (n *node) listeners() (names []string) {
	if l, ok := n.spec.(ListenerSpec); ok {
		names = append(names, l.Name)
	}
	for _, c := range n.children {
		names = append(names, c.listeners()...)
	}
	return names
}

// requests returns what the listener specs below n ask for.
func (n *node) requests() (rs []netactor.Request) {
	if l, ok := n.spec.(ListenerSpec); ok {
		rs = append(rs, l.request())
	}
	for _, c := range n.children {
		rs = append(rs, c.requests()...)
	}
	return rs
}

// listenRules returns what the workers of the pool at path may ask for.
func (n *node) listenRules(path string) ListenRules {
	if at := n.find(path); at != nil {
		if p, ok := at.spec.(Pool); ok {
			less := p.Environment.anotherUser()
			return p.Listen.Or(ListenRules{Any: !less, None: less})
		}
	}
	return ListenRules{None: true}
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
