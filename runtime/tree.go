package coppice

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
)

// maxPool bounds Pool.Size: far above what one machine runs well, far below
// what a slip of the finger costs.
const maxPool = 4096

// maxName bounds the name of a child in bytes. Registered names are made of them.
const maxName = 64

// maxSignal is the highest signal of Linux.
const maxSignal = 64

// notInName tells whether r means something to the tree or to the actors' names.
func notInName(r rune) bool {
	return unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError || strings.ContainsRune("/@$", r)
}

// node is a child spec at its place in the tree.
type node struct {
	path     string // names joined by slashes; "" = the root
	spec     ChildSpec
	children []*node
}

// parseTree validates cfg as a whole and returns its tree, or every error in it.
func parseTree(cfg Config) (*node, error) {
	var errs []error
	bad := func(path, field string, value any, why string) {
		errs = append(errs, &InvalidError{path, field, value, why})
	}
	if len(cfg.Children) == 0 {
		bad("", "Children", "[]", "a tree needs at least one child")
	}
	if cfg.Shutdown < 0 {
		bad("", "Shutdown", cfg.Shutdown, "is negative")
	}
	if cfg.OrphanDrain != None {
		notNegative(bad, "", "OrphanDrain", cfg.OrphanDrain)
	}
	checkIsolation(bad, "", "ListenerIsolation", cfg.ListenerIsolation)
	checkStrategy(bad, "", cfg.Strategy, cfg.Intensity)
	root := &node{}
	root.children = validateChildren(bad, "", cfg.Children)
	return root, errors.Join(errs...)
}

// reserves reports whether a name is the tree's own, which no child may register: it is,
// or is below, the master's, the listener process's or that of a child of the root n.
func (n *node) reserves(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	switch first {
	case childproto.MasterName, childproto.ListenersName, childproto.ListenerName:
		return true
	}
	return slices.ContainsFunc(n.children, func(c *node) bool { return c.path == first })
}

type reportInvalid func(path, field string, value any, why string)

func validateChildren(bad reportInvalid, parent string, specs []ChildSpec) []*node {
	seen := map[string]bool{}
	var nodes []*node
	for i, spec := range specs {
		if spec == nil {
			bad(parent, fmt.Sprintf("Children[%d]", i), nil, "is nil")
			continue
		}
		name := spec.childName()
		path := name
		if parent != "" {
			path = parent + "/" + name
		}
		switch {
		case name == "":
			bad(parent, fmt.Sprintf("Children[%d].Name", i), `""`, "is empty")
		case len(name) > maxName || strings.ContainsFunc(name, notInName):
			bad(path, "Name", fmt.Sprintf("%q", name), fmt.Sprintf("is not up to %d bytes without space, control characters, /, @ and $", maxName))
		case parent == "" && (name == childproto.MasterName || name == childproto.ListenersName):
			bad(path, "Name", fmt.Sprintf("%q", name), "is the tree's own")
		case seen[name]:
			bad(path, "Name", fmt.Sprintf("%q", name), "is the name of a sibling too")
		}
		seen[name] = true
		n := &node{path: path, spec: spec}
		switch s := spec.(type) {
		case Pool:
			s.validate(bad, path)
		case Func:
			notNil(bad, path, "Run", s.Run == nil)
			checkRestart(bad, path, s.Restart)
			notNegative(bad, path, "Shutdown", s.Shutdown)
		case Actor:
			notNil(bad, path, "New", s.New == nil)
			if s.Bound < 0 {
				bad(path, "Bound", s.Bound, "is negative")
			}
			checkRestart(bad, path, s.Restart)
			notNegative(bad, path, "Shutdown", s.Shutdown)
		case Process:
			s.validate(bad, path)
		case Supervisor:
			if len(s.Children) == 0 {
				bad(path, "Children", "[]", "a supervisor needs at least one child")
			}
			checkStrategy(bad, path, s.Strategy, s.Intensity)
			checkRestart(bad, path, s.Restart)
			n.children = validateChildren(bad, path, s.Children)
		case ListenerSpec:
			s.validate(bad, path)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func (p Pool) validate(bad reportInvalid, path string) {
	if p.Size < 0 || p.Size > maxPool {
		bad(path, "Size", p.Size, fmt.Sprintf("is not between 1 and %d (0 = one for each CPU)", maxPool))
	}
	notNil(bad, path, "Worker", p.Worker == nil)
	checkIsolation(bad, path, "Isolation", p.Isolation)
	checkStrategy(bad, path, p.Strategy, p.Intensity)
	checkRestart(bad, path, p.Restart)
	checkExitCodes(bad, path, p.SuccessExit)
	p.Liveness.validate(bad, path)
	if p.Spares < 0 || p.Spares > maxPool {
		bad(path, "Spares", p.Spares, fmt.Sprintf("is not between 0 and %d", maxPool))
	}
	p.Rollout.validate(bad, path)
	if p.OTP && p.Backoff != (supervisor.Backoff{}) {
		bad(path, "Backoff", p.Backoff, "stands beside OTP, which restarts at once")
	}
	if p.ScaleDown > LeastBusyFirst {
		bad(path, "ScaleDown", p.ScaleDown, "is none of youngest, oldest, least-busy")
	}
	p.Recycle.validate(bad, path)
	notNegative(bad, path, "StartTimeout", p.StartTimeout)
	if p.Shutdown != supervisor.BrutalKill {
		notNegative(bad, path, "Shutdown", p.Shutdown)
	}
	p.Environment.validate(bad, path)
	for _, l := range p.Environment.Rlimits {
		if l.Name == "nofile" && l.Hard < workerDescriptors { // Go raises the soft limit to the hard one
			bad(path, "Environment.Rlimits", fmt.Sprintf("nofile %d:%d", l.Soft, l.Hard), fmt.Sprintf("a worker takes %d descriptors", workerDescriptors))
		}
	}
	if err := p.Listen.Validate(); err != nil {
		bad(path, "Listen", fmt.Sprintf("%+v", p.Listen), err.Error())
	}
	if p.Isolation == GoroutineIsolation && !p.Environment.isZero() {
		bad(path, "Environment", "of goroutines", "is the master's own: only processes can have another")
	}
}

func (p Process) validate(bad reportInvalid, path string) {
	if len(p.Command) == 0 || p.Command[0] == "" {
		bad(path, "Command", p.Command, "names no program")
	}
	for i, arg := range p.Command {
		if len(arg) > maxString {
			bad(path, fmt.Sprintf("Command[%d]", i), fmt.Sprintf("%.100q", arg), tooLong(arg))
		}
	}
	checkExitCodes(bad, path, p.SuccessExit)
	checkRestart(bad, path, p.Restart)
	p.Environment.validate(bad, path)
	p.Ready.validate(bad, path)
	notNegative(bad, path, "StartTimeout", p.StartTimeout)
	if p.Stop < 0 || p.Stop > maxSignal {
		bad(path, "Stop", int(p.Stop), "is not a signal")
	}
	if p.Shutdown != supervisor.BrutalKill && p.Shutdown != supervisor.Infinity {
		notNegative(bad, path, "Shutdown", p.Shutdown)
	}
}

func checkIsolation(bad reportInvalid, path, field string, i Isolation) {
	if i > GoroutineIsolation {
		bad(path, field, i, "is neither process nor goroutine")
	}
}

// checkStrategy checks what supervisor would refuse later, and at a path that the
// user has not written.
func checkStrategy(bad reportInvalid, path string, s supervisor.Strategy, i supervisor.Intensity) {
	if s > supervisor.RestForOne {
		bad(path, "Strategy", s, "is none of one_for_one, one_for_all, rest_for_one")
	}
	if i.Max < 0 || i.Period < 0 || i.Max > 0 && i.Period == 0 {
		bad(path, "Intensity", i, "needs a Max of at least 0 and a Period above 0")
	}
}

func checkRestart(bad reportInvalid, path string, r supervisor.Restart) {
	if r > supervisor.Temporary {
		bad(path, "Restart", r, "is none of permanent, transient, temporary")
	}
}

func checkExitCodes(bad reportInvalid, path string, codes []int) {
	for _, c := range codes {
		if c < 0 || c > 255 {
			bad(path, "SuccessExit", c, "is not between 0 and 255")
		}
	}
}

func notNil(bad reportInvalid, path, field string, isNil bool) {
	if isNil {
		bad(path, field, nil, "is nil")
	}
}

func notNegative(bad reportInvalid, path, field string, d time.Duration) {
	if d < 0 {
		bad(path, field, d, "is negative")
	}
}

// listens tells whether anything below n may want a listener.
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

// describe returns the tree's data, one line a spec, for a child to compare with
// its own: a child that was started with another tree than its master has must
// not run. Functions are left out; they cannot be compared.
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
			l.Check = nil // a function, too
			value = l
		}
		fmt.Fprintf(&b, " %s=%v", f.Name, value)
	}
	return b.String()
}

// maxTreeText bounds the tree's data in a hello, in bytes.
const maxTreeText = 64 << 10

// shortened returns lines as they are compared: within maxTreeText, and with what JSON
// leaves as it is. A long line ends with its digest then, and the digest of all stands for
// too many lines.
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

// difference names the first line in which two trees differ, or returns "".
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

// load runs cfg.Load.
func (cfg Config) load(ctx context.Context) ([]byte, error) {
	if cfg.Load == nil {
		return nil, nil
	}
	b, err := cfg.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("coppice: load the configuration: %w", err)
	}
	if len(b) > maxConfig {
		return nil, fmt.Errorf("coppice: load the configuration: Config.Load returned %d bytes, at most %d", len(b), maxConfig)
	}
	return b, nil
}
