package coppice

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/declaration"
	"github.com/coppice-go/coppice/supervisor"
)

// Describe returns the tree of cfg as text that stays the same until the tree changes, for a golden
// file of a test:
//
//	Config.Shutdown 30s
//	web Pool
//	web.Size 4
//	web.Worker func
//	web.Environment.Env.TOKEN set
//	default Pool.StartTimeout 30s
//
// Each child has a line, and each field of it that is set has one; the defaults of the kinds of
// children come once, at the end, but for those that depend on the machine. Functions are "func",
// values behind an interface or a pointer are their type, and the values of variables, which may be
// secrets, are not shown. Config.Service is left out, because [Main] sets it. Nothing of cfg is
// called. The error is that of [Start] for what cannot be used.
func Describe(cfg Config) (string, error) {
	cfg = cfg.defaults()
	root, err := parseTree(cfg)
	if err != nil {
		return "", err
	}
	return cfg.describe(root, func(n *node) (ChildSpec, bool) { return n.spec, true }), nil
}

// Describe returns the tree that runs now, as the function Describe does: with the children that
// were added, without those that are gone, and with the sizes that pools were given. It never
// waits. What the two say otherwise is what has changed since the start.
func (rt *Runtime) Describe() string {
	there := map[string]bool{}
	var walk func(path string, nodes []supervisor.Node)
	walk = func(path string, nodes []supervisor.Node) {
		for _, n := range nodes {
			there[path+n.ID] = true
			walk(path+n.ID+"/", n.Children)
		}
	}
	walk("", rt.tree.Snapshot().Children)
	return rt.cfg.describe(rt.root, func(n *node) (ChildSpec, bool) {
		spec := n.spec
		if p, ok := spec.(Pool); ok {
			if size := rt.sizes.size(n.path, p.size()); size != p.size() {
				p.Size = size
				spec = p
			}
		}
		return spec, there[n.path]
	})
}

// describe describes the children below root for which now returns a spec.
func (cfg Config) describe(root *node, now func(*node) (spec ChildSpec, ok bool)) string {
	var b strings.Builder
	write := func(path string, spec any, but ...string) {
		for _, l := range declaration.Describe(path, spec, but...) {
			b.WriteString(inWords(l) + "\n")
		}
	}
	kinds := []any{defaultsOf(Supervisor{})} // the root is one
	var walk func(*node)
	walk = func(n *node) {
		for _, c := range n.children() {
			spec, ok := now(c)
			if !ok {
				continue
			}
			b.WriteString(c.path + " " + declaration.Kind(spec) + "\n")
			write(c.path, spec, "Name", "Children")
			if d := defaultsOf(spec); d != nil && !slices.ContainsFunc(kinds, func(k any) bool { return declaration.Kind(k) == declaration.Kind(d) }) {
				kinds = append(kinds, d)
			}
			walk(c)
		}
	}
	write("Config", cfg, "Children", "Service")
	walk(root)
	slices.SortFunc(kinds, func(a, b any) int { return cmp.Compare(declaration.Kind(a), declaration.Kind(b)) })
	for _, k := range kinds {
		write("default "+declaration.Kind(k), k)
	}
	return b.String()
}

// inWords returns a line with the names of the durations that are no times.
func inWords(line string) string {
	field, value, _ := strings.Cut(line, " ")
	shutdown := strings.HasSuffix(field, ".Shutdown")
	switch {
	case value == supervisor.BrutalKill.String() && shutdown:
		value = "BrutalKill"
	case value == supervisor.Infinity.String() && shutdown:
		value = "Infinity"
	case value == time.Duration(None).String():
		value = "None"
	}
	return field + " " + value
}

// defaultsOf returns a spec of the same kind with the defaults that no machine changes; nil if it
// has none.
func defaultsOf(spec ChildSpec) any {
	switch spec.(type) {
	case Pool:
		p := Pool{}.complete()
		p.Size, p.Rollout.MaxDraining, p.Liveness = 0, 0, p.Liveness.defaults()
		return p
	case Func:
		return Func{Shutdown: supervisor.DefaultShutdown}
	case Actor:
		return Actor{Shutdown: supervisor.DefaultShutdown}
	case Process:
		return Process{StartTimeout: defaultStartTimeout, Shutdown: supervisor.DefaultShutdown}
	case Supervisor:
		return Supervisor{Intensity: supervisor.Intensity{Max: 1, Period: 5 * time.Second}}
	}
	return nil
}
