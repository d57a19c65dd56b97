package coppice

import (
	"crypto/sha256"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
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

// describe returns the tree's data, one line a spec. A child compares it with its own, because a
// child with a tree other than its master's must not run. Functions are left out; they cannot be
// compared.
func (n *node) describe() []string { return shortened(n.lines()) }

func (n *node) lines() []string {
	var out []string
	if n.path != "" {
		out = append(out, n.path+": "+describeSpec(reflect.ValueOf(n.spec)))
	}
	for _, c := range n.children {
		out = append(out, c.lines()...)
	}
	return out
}

func describeSpec(v reflect.Value) string {
	var b strings.Builder
	b.WriteString(v.Type().Name())
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Type.Kind() == reflect.Func || f.Name == "Hooks" || f.Name == "Name" || f.Name == "Children" {
			continue
		}
		value := v.Field(i).Interface()
		if l, ok := value.(Liveness); ok {
			l.Check = nil // also a function
			value = l
		}
		fmt.Fprintf(&b, " %s=%v", f.Name, value)
	}
	return b.String()
}

// maxTreeText bounds the tree's data in a hello, in bytes.
const maxTreeText = 64 << 10

// shortened returns lines in the form in which they are compared: as text that JSON leaves
// unchanged, within maxTreeText. If the lines are too long in all, each long line ends with its
// digest; if that is not enough, the digest of all lines stands in their place.
func shortened(lines []string) []string {
	const long, kept = 256, 192
	out := make([]string, len(lines))
	size, all := 0, sha256.New()
	for i, line := range lines {
		out[i] = strings.ToValidUTF8(line, "\uFFFD")
		size += len(out[i])
		fmt.Fprintf(all, "%d %s", len(line), line)
	}
	if size <= maxTreeText {
		return out
	}
	size = 0
	for i, line := range lines {
		if len(line) > long {
			out[i] = fmt.Sprintf("%s… (%d bytes, sha256 %x)", strings.ToValidUTF8(line[:kept], "\uFFFD"), len(line), sha256.Sum256([]byte(line)))
		}
		size += len(out[i])
	}
	if size <= maxTreeText {
		return out
	}
	return []string{fmt.Sprintf("%d children, sha256 %x", len(lines), all.Sum(nil))}
}

// difference returns the first line in which two trees differ, or "".
func difference(master, mine []string) string {
	for i := range max(len(master), len(mine)) {
		a, b := "nothing", "nothing"
		if i < len(master) {
			a = master[i]
		}
		if i < len(mine) {
			b = mine[i]
		}
		if a != b {
			return fmt.Sprintf("the master has {%s}, this process {%s}", a, b)
		}
	}
	return ""
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
