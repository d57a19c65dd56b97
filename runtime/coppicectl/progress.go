package main

import (
	"fmt"
)

// progress makes lines of the events of a reload, or of another write.
type progress struct {
	slots    int // that are to be replaced; 0 = it is not known
	replaced int
	reload   bool         // it shows one reload, and nothing of others
	began    int          // the generation of that reload; 0 = it waits for another
	over     bool         // it has ended
	draining map[int]bool // by ID

	upgrade   bool   // it shows an upgrade, and nothing of before
	upgrading bool   // that has begun
	upgraded  *event // its end; the last, if the old program came back
	pids      map[string]int
}

// newProgress returns the progress of what concerns these processes.
func newProgress(workers []worker) *progress {
	p := &progress{draining: map[int]bool{}, pids: map[string]int{}}
	for _, w := range workers {
		p.pids[w.Name] = w.PID
		if w.Role == "worker" || w.Role == "listener" {
			p.slots++
		}
	}
	return p
}

// add returns the line for an event; "" = none. A transient line is replaced by the next.
func (p *progress) add(e event) (line string, transient bool) {
	name := e.subject()
	if e.Path == "listeners" {
		name = "listener"
	}
	if e.Kind == "tree reloading" && p.began == 0 {
		p.began = e.Generation
	}
	old := p.pids[name]
	if e.Kind == "replaced" {
		p.pids[name] = e.PID
	}
	p.over = p.over || p.began != 0 && e.Kind == "tree reloaded" && e.Generation == p.began
	if p.reload && (p.began == 0 || p.over) {
		if e.Why == "reload" && !p.over {
			return "another reload is under way, and this one waits for it", true
		}
		return "", false
	}
	if p.upgrade && (!p.upgrading && e.Kind != "tree upgrading" || e.Kind == "started" && (old == e.PID || e.PID == 0)) {
		return "", false // a process with the PID of before was taken over
	}
	switch e.Kind {
	case "tree upgrading":
		if p.upgraded = nil; p.upgrading {
			return "upgrade goes back to the program of before", false
		}
		p.upgrading = true
		return "upgrade to the program as it is now", false
	case "tree upgraded":
		if p.upgraded = &e; e.Error == "" {
			return fmt.Sprintf("tree upgraded, %s after its exec", seconds(e.Took)), false
		}
	case "tree reloading":
		return fmt.Sprintf("reload to generation %d", e.Generation), false
	case "starting":
		if e.Why == "roll back" {
			return fmt.Sprintf("  %-14s goes back to generation %d", name, e.Generation), false
		}
		return fmt.Sprintf("  %-14s starts: %s", name, e.Why), true
	case "replaced":
		line = readyText(name, e)
		if old != 0 {
			line += fmt.Sprintf(" in place of %d", old)
		}
		if e.Why == "reload" && p.slots > 0 {
			p.replaced++
			line += fmt.Sprintf("  [%d/%d]", p.replaced, max(p.slots, p.replaced))
		}
		return line, false
	case "failed", "start failed":
		return fmt.Sprintf("  %-14s failed: %s", name, e.Reason), false
	case "exited":
		return fmt.Sprintf("  %-14s ended: %s", name, e.Reason), false
	case "started":
		return readyText(name, e), false
	case "draining":
		p.draining[e.ID] = true
	case "drained":
		delete(p.draining, e.ID)
		if e.Reason != "shutdown" && e.Reason != "normal" {
			return fmt.Sprintf("  %-14s its drain ended: %s", name, e.Reason), false
		}
	case "hosts":
		return e.Why, false
	case "scaled", "gave up", "goes on over its budget":
		return "  " + e.Text, false
	}
	return "", false
}

// end returns the last line of what succeeded.
func (p *progress) end(r result) string {
	line := "done"
	if r.Took >= 0.001 {
		line += " in " + seconds(r.Took)
	}
	if n := len(p.draining); n > 0 {
		line += "; old processes that still drain: " + fmt.Sprint(n)
	}
	return line
}

// readyText is the line of a child that is ready. Only processes have a pid.
func readyText(name string, e event) string {
	line := fmt.Sprintf("  %-14s ready in %s", name, seconds(e.Took))
	if e.PID != 0 {
		line += fmt.Sprintf(", pid %d", e.PID)
	}
	return line
}
