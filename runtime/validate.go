package coppice

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"syscall"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/supervisor"
)

// parseTree validates cfg as a whole and returns its tree, or every error in it.
func parseTree(cfg Config) (*node, error) {
	var errs []error
	bad := func(path, field string, value any, why string) {
		errs = append(errs, &InvalidError{path, field, value, why})
	}
	children := cfg.Children
	if cfg.Hosts != nil {
		if err := cfg.Hosts.Validate(); err != nil {
			bad("", "Hosts", "Cluster", err.Error())
		}
		children = append(hostPools(cfg.Hosts, cfg.ListenerIsolation), children...)
	}
	if len(children) == 0 {
		bad("", "Children", "[]", "a tree needs at least one child")
	}
	if cfg.Shutdown < 0 {
		bad("", "Shutdown", cfg.Shutdown, "is negative")
	}
	if cfg.OrphanDrain != None {
		notNegative(bad, "", "OrphanDrain", cfg.OrphanDrain)
	}
	if cfg.Service.SignalEcho != None {
		notNegative(bad, "", "Service.SignalEcho", cfg.Service.SignalEcho)
	}
	checkIsolation(bad, "", "ListenerIsolation", cfg.ListenerIsolation)
	if cfg.MaxLine < 1<<10 || cfg.MaxLine > 64<<20 {
		bad("", "MaxLine", cfg.MaxLine, "is not between 1 KiB and 64 MiB")
	}
	if cfg.Tags > TagNone {
		bad("", "Tags", cfg.Tags, "is not known")
	}
	checkStrategy(bad, "", cfg.Strategy, cfg.Intensity)
	root := &node{}
	root.declared = validateChildren(bad, "", children)
	root.checkListeners(bad, root.listenerSpecs())
	return root, errors.Join(errs...)
}

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
			checkStrategy(bad, path, s.Strategy, s.Intensity)
			checkRestart(bad, path, s.Restart)
			n.declared = validateChildren(bad, path, s.Children)
		case ListenerSpec:
			s.validate(bad, path)
		}
		nodes = append(nodes, n)
	}
	return nodes
}

func (p Pool) validate(bad reportInvalid, path string) {
	if p.Size < 0 || p.Size > maxPool {
		bad(path, "Size", p.Size, fmt.Sprintf("is not between 1 and %d (0 = one for each CPU that the master may use)", maxPool))
	}
	p.validateProgram(bad, path)
	switch {
	case p.Command != nil:
	case p.Function == "":
		notNil(bad, path, "Worker", p.Worker == nil)
	case p.Worker != nil:
		bad(path, "Function", fmt.Sprintf("%q", p.Function), "stands beside Worker")
	case p.run() == nil:
		bad(path, "Function", fmt.Sprintf("%q", p.Function), "is the name of no function that this program has registered: call RegisterFunction first, in every process")
	}
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
	if p.MaxParallelStarts < 0 {
		bad(path, "MaxParallelStarts", p.MaxParallelStarts, "is negative")
	}
	p.Recycle.validate(bad, path)
	p.Poison.validate(bad, path)
	p.RequestTimeout.validate(bad, path)
	p.Autoscale.validate(bad, path, p.Size)
	p.Canary.validate(bad, path, p)
	notNegative(bad, path, "StartTimeout", p.StartTimeout)
	if p.Shutdown != supervisor.BrutalKill {
		notNegative(bad, path, "Shutdown", p.Shutdown)
	}
	p.Environment.validate(bad, path, p.Command != nil)
	for _, l := range p.Environment.Rlimits {
		if l.Name == "nofile" && l.Hard < workerDescriptors && p.Command == nil { // Go raises the soft limit to the hard one
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

// validateProgram checks what is of a program, or is not.
func (p Pool) validateProgram(bad reportInvalid, path string) {
	type field struct {
		name string
		set  bool
	}
	check := func(why string, fields ...field) {
		for _, f := range fields {
			if f.set {
				bad(path, f.name, "set", why)
			}
		}
	}
	if p.Command == nil {
		check("is for a Command", field{"Listeners", p.Listeners != nil}, field{"Ready", p.Ready != Ready{}}, field{"Stop", p.Stop != 0})
		return
	}
	validateCommand(bad, path, p.Command)
	validateStop(bad, path, p.Stop)
	p.Ready.validate(bad, path)
	check("stands beside Command", field{"Worker", p.Worker != nil}, field{"Function", p.Function != ""}, field{"Prepare", p.Prepare != nil})
	check("is of a worker function, which a Command has not", field{"Isolation", p.Isolation != ProcessIsolation},
		field{"Recycle.Requests", p.Recycle.Requests != 0}, field{"Liveness.Path", p.Liveness.Path != ""}, field{"Liveness.Check", p.Liveness.Check != nil},
		field{"Autoscale", p.Autoscale != Autoscale{}}, field{"Canary", !p.Canary.isZero()}, field{"Listen", !reflect.ValueOf(p.Listen).IsZero()})
	check("needs Ready.Notify: a program says WATCHDOG=1 on its NOTIFY_SOCKET", field{"Liveness.Timeout", p.Liveness.Timeout != 0 && !p.Ready.Notify})
}

func validateCommand(bad reportInvalid, path string, command []string) {
	if len(command) == 0 || command[0] == "" {
		bad(path, "Command", command, "names no program")
	}
	for i, arg := range command {
		if len(arg) > maxString {
			bad(path, fmt.Sprintf("Command[%d]", i), fmt.Sprintf("%.100q", arg), tooLong(arg))
		}
	}
}

func validateStop(bad reportInvalid, path string, s syscall.Signal) {
	if s < 0 || s > maxSignal {
		bad(path, "Stop", int(s), "is not a signal")
	}
}

// listenerSpecs returns the listener specs below n by their names.
func (n *node) listenerSpecs() map[string]ListenerSpec {
	specs := map[string]ListenerSpec{}
	if l, ok := n.spec.(ListenerSpec); ok {
		specs[l.Name] = l
	}
	for _, c := range n.children() {
		maps.Copy(specs, c.listenerSpecs())
	}
	return specs
}

// checkListeners checks the Listeners of the programs at and below n.
func (n *node) checkListeners(bad reportInvalid, specs map[string]ListenerSpec) {
	var names []string
	spares, pool := 0, false
	switch s := n.spec.(type) {
	case Pool:
		names, spares, pool = s.Listeners, s.Spares, true
	case Process:
		names = s.Listeners
	}
	for i, name := range names {
		l, ok := specs[name]
		switch reused := l.Policy == ReusePort; {
		case !ok:
			bad(n.path, "Listeners", fmt.Sprintf("%q", name), "is the name of no ListenerSpec of the tree")
		case slices.Contains(names[:i], name):
			bad(n.path, "Listeners", fmt.Sprintf("%q", name), "is there twice")
		case strings.ContainsRune(name, ':'):
			bad(n.path, "Listeners", fmt.Sprintf("%q", name), "has a colon, which separates the names in LISTEN_FDNAMES")
		case l.Policy.Dispatched():
			bad(n.path, "Listeners", fmt.Sprintf("%q", name), fmt.Sprintf("has Policy %v: a program accepts by itself, on a listener whose Policy is Shared, or ReusePort in a Pool", l.Policy))
		case reused && !pool:
			bad(n.path, "Listeners", fmt.Sprintf("%q", name), "has Policy ReusePort, which gives each slot of a Pool a socket: a Process takes one that is Shared")
		case reused && spares > 0:
			bad(n.path, "Spares", spares, fmt.Sprintf("stands beside the listener %q, whose Policy is ReusePort: a spare has no slot, and so no socket", name))
		}
	}
	for _, c := range n.children() {
		c.checkListeners(bad, specs)
	}
}

func (p Process) validate(bad reportInvalid, path string) {
	validateCommand(bad, path, p.Command)
	validateStop(bad, path, p.Stop)
	checkExitCodes(bad, path, p.SuccessExit)
	checkRestart(bad, path, p.Restart)
	p.Environment.validate(bad, path, true)
	p.Ready.validate(bad, path)
	notNegative(bad, path, "StartTimeout", p.StartTimeout)
	if p.Shutdown != supervisor.BrutalKill && p.Shutdown != supervisor.Infinity {
		notNegative(bad, path, "Shutdown", p.Shutdown)
	}
}

func checkIsolation(bad reportInvalid, path, field string, i Isolation) {
	if i > GoroutineIsolation {
		bad(path, field, i, "is neither process nor goroutine")
	}
}
