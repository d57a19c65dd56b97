package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// facts are what a sentence about a child is made of.
type facts struct {
	now       time.Time
	root      node
	workers   []worker
	listeners []listener
	events    []event // oldest first
	crashes   []crash // newest first
}

// find returns the node with a name, an ID or a path, its path, and the supervisor above it.
func (n node) find(name, path string) (found *node, at string, above *node) {
	for i := range n.Children {
		c := &n.Children[i]
		at := strings.TrimPrefix(path+"/"+c.Name[strings.LastIndexByte(c.Name, '/')+1:], "/")
		if c.Name == name || at == name || c.ID != 0 && fmt.Sprint(c.ID) == name {
			return c, at, &n
		}
		if f, p, a := c.find(name, at); f != nil {
			return f, p, a
		}
	}
	return nil, "", nil
}

// why returns a sentence that says why a child is as it is; reload is the last reload. It returns
// false if nothing has that name.
func (f facts) why(name string) (string, bool) {
	if name == "reload" {
		return f.reload(), true
	}
	if name == "master" {
		return fmt.Sprintf("master is %s %s, as pid %d", f.root.State, f.since(f.root.Since), f.root.PID), true
	}
	n, path, above := f.root.find(name, "")
	for _, l := range f.listeners {
		if (l.Name == name || l.Address == name) && (n == nil || n.Role == "listener") {
			return f.listener(l), true
		}
	}
	if n == nil {
		for _, e := range slices.Backward(f.events) {
			if (e.Path == name || e.Name == name) && name != "" {
				return fmt.Sprintf("%s is no longer in the tree: %s, %s", name, f.trimmed(e), f.at(e.Time)), true
			}
		}
		return "", false
	}
	if len(n.Children) > 0 || n.Role == "pool" || n.Role == "supervisor" {
		return f.group(n, path), true
	}
	return f.child(n, path, above) + f.loop(n.Name), true
}

// child is the sentence about a process, an actor or a function.
func (f facts) child(n *node, path string, above *node) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s is %s %s", path, n.State, f.since(n.Since))
	if n.PID != 0 && n.State != "restarting" && n.State != "down" { // otherwise it has ended
		fmt.Fprintf(&b, ", now as pid %d", n.PID)
	}
	b.WriteString(f.unwell(n))
	cause, found := f.last(n, path, func(e event) bool {
		return slices.Contains([]string{"exited", "start failed", "failed", "stopping", "replaced", "gave up"}, e.Kind)
	})
	if !found {
		switch {
		case n.LastExit != "":
			fmt.Fprintf(&b, "; its last incarnation ended: %s", n.LastExit)
		case n.Incarnation > 1:
			fmt.Fprintf(&b, "; it is incarnation %d, and the events that say why are no longer kept", n.Incarnation)
		case n.State == "running":
			b.WriteString("; it has not ended since the tree began")
		}
		return b.String()
	}
	switch cause.Kind {
	case "exited":
		who := "it"
		if cause.PID != 0 {
			who = fmt.Sprintf("pid %d", cause.PID)
		}
		fmt.Fprintf(&b, ": %s ended %s after %s, with %s", who, f.at(cause.Time), seconds(cause.Took), cause.Reason)
		b.WriteString(f.report(cause))
	case "start failed", "failed":
		fmt.Fprintf(&b, ": its start failed %s, with %s", f.at(cause.Time), cause.Reason)
		b.WriteString(f.report(cause))
	case "stopping":
		fmt.Fprintf(&b, ": it was stopped %s", f.at(cause.Time))
		if cause.Cause != "" {
			fmt.Fprintf(&b, " because of %s, as its supervisor's strategy says", cause.Cause)
			if other, ok := f.last(&node{Name: cause.Cause}, cause.Cause, func(e event) bool { return e.Kind == "exited" }); ok {
				fmt.Fprintf(&b, ", which ended with %s", other.Reason)
			}
		}
	case "replaced":
		fmt.Fprintf(&b, ": it took the place of its predecessor %s", f.at(cause.Time))
		switch cause.Why {
		case "reload":
			fmt.Fprintf(&b, " in the reload to generation %d", cause.Generation)
		case "roll back":
			b.WriteString(" when a failed reload went back: " + f.reload())
		default:
			fmt.Fprintf(&b, " (%s)", cause.Why)
			if due, ok := f.last(n, path, func(e event) bool { return e.Kind == "due" && e.Cursor < cause.Cursor }); ok {
				fmt.Fprintf(&b, ", which was due: %s", due.Why)
			}
		}
	case "gave up":
		fmt.Fprintf(&b, ": %s, %s", f.trimmed(cause), f.at(cause.Time))
	}
	b.WriteString(f.asker(cause))
	restart, restarted := f.last(n, path, func(e event) bool { return e.Kind == "restarting" && e.Cursor > cause.Cursor })
	switch {
	case n.State != "running" && above != nil && above.State == "down":
		fmt.Fprintf(&b, "; %s, which would restart it, is down: %s", above.Name, cmp.Or(above.LastExit, "it gave up"))
	case restarted && n.State == "restarting":
		fmt.Fprintf(&b, "; attempt %d is in %s, with %d of %d restarts left", restart.Attempt, span(restart.Time.Add(time.Duration(restart.Delay*float64(time.Second))).Sub(f.now)), restart.Left, restart.Max)
	case restarted:
		fmt.Fprintf(&b, "; it was restarted (attempt %d) with %d of %d restarts left", restart.Attempt, restart.Left, restart.Max)
	case n.State == "down" && cause.Kind == "exited":
		b.WriteString("; it is not restarted: its spec says so")
	}
	return b.String()
}

// loop says that a child keeps ending, if it does.
func (f facts) loop(name string) string {
	ends := 0
	for _, e := range f.events {
		if slices.Contains([]string{"exited", "failed", "start failed"}, e.Kind) && e.subject() == name && f.now.Sub(e.Time) < time.Minute {
			ends++
		}
	}
	if ends < 3 {
		return ""
	}
	return fmt.Sprintf("; %s keeps ending: %d times within the last minute", name, ends)
}

// listener is the sentence about a listener.
func (f facts) listener(l listener) string {
	name := cmp.Or(l.Name, l.Address)
	s := fmt.Sprintf("%s (%s %s, %s) ", name, l.Network, l.Address, l.Policy)
	switch {
	case l.Refuses:
		s += "refuses all connections: the pool that used it is gone for good"
	case l.Paused:
		s += "is paused: new connections wait until it is resumed"
	default:
		s += "accepts"
	}
	if c := l.Counts; c != nil {
		s += fmt.Sprintf("; it has accepted %s, of which %d were claimed by a worker, %d wait, and %d are lost",
			count(int(c.Accepted), "connection"), c.Claimed, c.Waiting, c.TurnedAway+c.Reset+c.Dropped+c.Errors)
	}
	for _, e := range slices.Backward(f.events) {
		what, _, _ := strings.Cut(e.Why, ",")
		if _, of, ok := strings.Cut(what, " listener="); ok && of == name && e.Kind == "asked by an operator" {
			return s + fmt.Sprintf("; an operator had asked for it %s (%s)", f.at(e.Time), e.Why)
		}
	}
	return s
}

// group is the sentence about a supervisor or a pool.
func (f facts) group(n *node, path string) string {
	up, total := 0, 0
	var down []string
	for _, c := range n.Children {
		if c.Role == "draining" || c.Role == "candidate" || c.Role == "spare" {
			continue
		}
		total++
		if c.State == "running" {
			up++
		} else {
			down = append(down, c.Name+" is "+c.State)
		}
	}
	s := fmt.Sprintf("%s is %s %s, with %d of %d children up", path, n.State, f.since(n.Since), up, total)
	if n.Budget > 0 {
		s += fmt.Sprintf(" and %d of %d restarts left", n.Budget-n.Used, n.Budget)
	}
	if len(down) > 0 {
		s += ": " + strings.Join(down[:min(3, len(down))], ", ")
	}
	for _, c := range n.Children {
		s += f.loop(c.Name)
	}
	inside := func(e event) bool { return e.Path == path || strings.HasPrefix(e.Path, path+"/") }
	for _, e := range slices.Backward(f.events) {
		if !inside(e) {
			continue
		}
		switch e.Kind {
		case "gave up", "goes on over its budget", "exited", "start failed", "failed", "scaled":
			return s + fmt.Sprintf("; the last that happened is %s, %s", f.trimmed(e), f.at(e.Time)) + f.report(e) + f.asker(e)
		case "reloaded":
			if e.Error != "" {
				return s + "; " + f.reload()
			}
			return s + fmt.Sprintf("; it was reloaded to generation %d %s", e.Generation, f.at(e.Time)) + f.asker(e)
		}
	}
	if n.LastExit != "" {
		return s + "; its last incarnation ended: " + n.LastExit
	}
	return s
}

// reload is the sentence about the last reload.
func (f facts) reload() string {
	for _, e := range slices.Backward(f.events) {
		switch e.Kind {
		case "tree reloading":
			return fmt.Sprintf("the reload to generation %d began %s and is under way", e.Generation, f.at(e.Time)) + f.asker(e)
		case "tree reloaded":
			if e.Error == "" {
				return fmt.Sprintf("the last reload, to generation %d, succeeded %s after %s", e.Generation, f.at(e.Time), seconds(e.Took)) + f.asker(e)
			}
			what := "the last reload"
			if e.Generation != 0 {
				what += fmt.Sprintf(" to generation %d", e.Generation)
			}
			reason, lines, _ := strings.Cut(e.Error, "\n")
			if _, after, ok := strings.Cut(reason, " failed: "); ok {
				reason = after
			}
			s := fmt.Sprintf("%s failed %s after %s: %s", what, f.at(e.Time), seconds(e.Took), reason)
			if _, line, ok := strings.Cut(lines[strings.LastIndexByte(lines, '\n')+1:], "| "); ok {
				s += fmt.Sprintf(" (its last line was %q)", line)
			}
			now := 0
			for _, w := range f.workers {
				now = max(now, w.Generation)
			}
			return s + fmt.Sprintf("; the processes run generation %d", now) + f.asker(e)
		}
	}
	return "no reload is known: the tree has not been reloaded, or its events are no longer kept"
}

// last returns the newest event that concerns a child and is of the kind that is asked for.
func (f facts) last(n *node, path string, is func(event) bool) (event, bool) {
	for _, e := range slices.Backward(f.events) {
		mine := e.Path == path || e.Name == n.Name
		if e.Slot != nil && fmt.Sprintf("%s/%d", e.Path, *e.Slot) == path {
			mine = true
		}
		if mine && is(e) {
			return e, true
		}
	}
	return event{}, false
}

// report adds what the crash report of the process has that ended: its last words, or its last
// line.
func (f facts) report(e event) string {
	for _, c := range f.crashes {
		if c.Name != e.Name || c.ID != e.ID || e.ID == 0 {
			continue
		}
		s := ""
		lost := 0
		for _, h := range c.Held {
			lost += h.Open
		}
		if lost > 0 {
			s = ", and " + count(lost, "connection") + " lost"
		}
		if c.Exit != nil && c.Exit.Words == "" && len(c.Lines) > 0 {
			s += fmt.Sprintf(" (its last line was %q)", c.Lines[len(c.Lines)-1].Text)
		}
		if c.Exit != nil && c.Exit.OOM != "" {
			s += fmt.Sprintf(" (the kernel had no memory for it: %s)", c.Exit.OOM)
		}
		return s
	}
	return ""
}

// asker says which operator asked for what happened, if one did shortly before.
func (f facts) asker(e event) string {
	for _, asked := range slices.Backward(f.events) {
		if asked.Cursor >= e.Cursor || asked.Kind != "asked by an operator" {
			continue
		}
		what, _, _ := strings.Cut(asked.Why, " ")
		what = strings.TrimSuffix(what, ",")
		_, of, _ := strings.Cut(asked.Why, "process=")
		of, _, _ = strings.Cut(of, ",")
		because := map[string]bool{
			"reload": e.Kind == "tree reloading" || e.Kind == "tree reloaded" || e.Kind == "reloaded" || e.Why == "reload" || e.Why == "roll back",
			"scale":  e.Kind == "scaled" || e.Why == "scale",
			"stop":   of == e.Name, "kill": of == e.Name, "restart": of == e.Name,
		}[what]
		if because && e.Time.Sub(asked.Time) < time.Minute+time.Duration(e.Took*float64(time.Second)) {
			return "; an operator had asked for it (" + asked.Why + ")"
		}
		return ""
	}
	return ""
}

func (f facts) unwell(n *node) string {
	for _, w := range f.workers {
		if w.ID == n.ID && n.ID != 0 && w.Unwell != "" {
			return ", but says that it is unwell (" + w.Unwell + ")"
		}
	}
	return ""
}

// trimmed is an event's first line.
func (f facts) trimmed(e event) string {
	first, _, _ := strings.Cut(e.Text, "\n")
	return first
}

func (f facts) at(t time.Time) string { return span(f.now.Sub(t)) + " ago" }

func (f facts) since(t *time.Time) string {
	if t == nil {
		return "now"
	}
	return "since " + t.Local().Format("15:04:05") + " (" + span(f.now.Sub(*t)) + ")"
}
