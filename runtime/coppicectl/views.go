package main

import (
	"fmt"
	"strings"
	"time"
)

// view is where something is shown.
type view struct {
	now    time.Time
	width  int // 0 = without end
	height int // 0 = without end
	colors bool
}

// listing renders the trees of the machine.
func listing(v view, trees []tree) []string {
	rows := make([][]cell, len(trees))
	for i, t := range trees {
		a := t.about
		rows[i] = row(a.Program, a.PID, fmt.Sprint(a.UID), stateCell(a.State), a.Generation, ago(v.now, &a.Started), t.path)
		if t.err != nil {
			rows[i] = row(a.Program, a.PID, "", cell{"no answer", red}, "", "", cell{t.path + ": " + t.err.Error(), red})
		}
	}
	return table([]column{{"PROGRAM", false, 0}, {"PID", true, 0}, {"UID", true, 3}, {"STATE", false, 0}, {"GEN", true, 2}, {"UP", true, 1}, {"SOCKET", false, 0}}, rows, v.width, v.colors)
}

// processes renders a row for each process.
func processes(v view, workers []worker) []string {
	rows := make([][]cell, len(workers))
	for i, w := range workers {
		note, cpu := cell{w.LastExit, dim}, ""
		if w.Unwell != "" {
			note = cell{"unwell: " + w.Unwell, red}
		}
		if w.CPU != nil {
			cpu = fmt.Sprintf("%.2fs", *w.CPU)
		}
		rows[i] = row(w.Name, w.Role, stateCell(w.State), ago(v.now, w.Since), w.PID, w.ID, w.Generation, w.Incarnation, memory(w), cpu, fmt.Sprint(w.Open), fmt.Sprint(w.Claimed), w.Files, note)
	}
	return table([]column{
		{"NAME", false, 0}, {"ROLE", false, 4}, {"STATE", false, 0}, {"FOR", true, 0}, {"PID", true, 0}, {"ID", true, 9}, {"GEN", true, 5}, {"INC", true, 7},
		{"MEM", true, 1}, {"TIME", true, 3}, {"CONN", true, 2}, {"TOTAL", true, 6}, {"FILES", true, 8}, {"LAST EXIT", false, 10},
	}, rows, v.width, v.colors)
}

// picture renders the tree. percent has the share of a CPU that processes use, by pid, if it is
// known.
func picture(v view, root node, workers []worker, percent map[int]float64) []string {
	type key struct{ id, pid int }
	byKey := map[key]worker{} // zero is none
	for _, w := range workers {
		byKey[key{w.ID, w.PID}] = w
	}
	var rows [][]cell
	var draw func(n node, first, rest string)
	draw = func(n node, first, rest string) {
		w, note, cpu := byKey[key{n.ID, n.PID}], note(n), ""
		if p, ok := percent[n.PID]; ok && w.PID != 0 {
			cpu = fmt.Sprintf("%.0f%%", p)
		}
		if w.Limits != "" {
			note.text = strings.TrimPrefix(note.text+", "+w.Limits, ", ")
		}
		if w.Unwell != "" {
			note = cell{"unwell: " + w.Unwell, red}
		}
		rows = append(rows, row(first+n.Name, stateCell(n.State), ago(v.now, n.Since), n.PID, n.Generation, memory(w), cpu, w.Open, note))
		for i, c := range n.Children {
			if i == len(n.Children)-1 {
				draw(c, rest+"└─ ", rest+"   ")
			} else {
				draw(c, rest+"├─ ", rest+"│  ")
			}
		}
	}
	draw(root, "", "")
	return table([]column{
		{"NAME", false, 0}, {"STATE", false, 0}, {"FOR", true, 1}, {"PID", true, 0}, {"GEN", true, 3}, {"MEM", true, 2}, {"CPU", true, 4}, {"CONN", true, 5}, {"", false, 6},
	}, rows, v.width, v.colors)
}

// note is what a row of the tree says at its end.
func note(n node) cell {
	var parts []string
	color := dim
	switch n.Role {
	case "worker", "listener", "master", "supervisor", "pool":
	default:
		parts = append(parts, n.Role)
	}
	if n.Used > 0 {
		parts = append(parts, fmt.Sprintf("%d of %d restarts left", n.Budget-n.Used, n.Budget))
		if n.Used*2 > n.Budget {
			color = yellow
		}
	}
	for _, l := range n.Listeners {
		text := strings.TrimSpace(l.Name + " " + strings.TrimPrefix(l.Addr, "tcp:") + " " + l.Policy)
		if l.Paused {
			text, color = text+" (paused)", yellow
		}
		parts = append(parts, text)
	}
	if n.Actor != nil && n.Actor.Summary != "" {
		parts = append(parts, n.Actor.Kind+": "+n.Actor.Summary)
	}
	if n.Actor != nil && (n.Actor.Queue > 0 || n.Actor.Failures > 0) {
		parts = append(parts, fmt.Sprintf("queue %d, failures %d", n.Actor.Queue, n.Actor.Failures))
	}
	if n.Leaked > 0 {
		parts = append(parts, fmt.Sprintf("%d leaked", n.Leaked))
	}
	if n.Sandbox != "" {
		parts = append(parts, "sandbox: "+n.Sandbox)
	}
	if n.LastExit != "" {
		parts = append(parts, "last exit: "+n.LastExit)
		if n.State != "running" {
			color = red
		}
	}
	return cell{strings.Join(parts, ", "), color}
}

const clock = "15:04:05.000"

// eventText renders an event as a line, after one that says how many were lost.
func eventText(v view, e event) []string {
	color := ""
	if e.Fault {
		color = red
	}
	return append(lost(v, e.Lost, "events"), cut(v, e.Time.Local().Format(clock)+" ", e.Text, color))
}

// logText renders a line of a process.
func logText(v view, l logLine) []string {
	lines := lost(v, l.Lost, "lines")
	tag := fmt.Sprintf("%s %s#%d g%d| ", l.Time.Local().Format(clock), l.Name, l.ID, l.Generation)
	for text := range strings.Lines(l.Text + "\n") {
		lines = append(lines, paint(clean(tag), dim, v.colors)+clean(strings.TrimRight(text, "\r\n")))
	}
	return lines
}

// lost returns a line if things were lost.
func lost(v view, n uint64, things string) []string {
	if n == 0 {
		return nil
	}
	return []string{paint(fmt.Sprintf("… %d %s lost: they are no longer kept", n, things), yellow, v.colors)}
}

// cut renders a head and a text in one line.
func cut(v view, head, text, color string) string {
	text = clean(text)
	if v.width > 0 {
		text = shorten(text, max(8, v.width-len(head)))
	}
	return paint(head, dim, v.colors) + paint(text, color, v.colors)
}

// shownLines is how many lines of each part of a crash report are shown, unless all are asked for.
const shownLines = 12

// crashText renders a crash report.
func crashText(v view, c crash, full bool) []string {
	lines := []string{paint(clean(fmt.Sprintf("%d  %s  %s#%d g%d  %s", c.Number, c.Time.Local().Format("2006-01-02 "+clock), c.Name, c.ID, c.Generation, c.Reason.Text)), red, v.colors)}
	ready := "ready"
	if !c.Ready {
		ready = "not yet ready"
	}
	life := fmt.Sprintf("  %s, %s, lived %s", c.Role, ready, seconds(c.Uptime))
	if x := c.Exit; x != nil {
		life += fmt.Sprintf(", pid %d, at most %s of memory", x.PID, size(x.MaxRSS))
		if x.OOM != "" {
			life += ", killed by the kernel for want of memory: " + x.OOM
		}
	}
	lines = append(lines, clean(life))
	for _, h := range c.Held {
		lines = append(lines, clean(fmt.Sprintf("  lost %s of %s, gave back %d", count(h.Open, "connection"), h.Listener, h.Offered)))
	}
	var said, dump []string
	for _, l := range c.Lines {
		said = append(said, l.Time.Local().Format(clock)+" "+l.Stream+"| "+l.Text)
	}
	if c.Dump != "" {
		dump = strings.Split(strings.TrimSuffix(c.Dump, "\n"), "\n")
	}
	more := func(n int) string { return fmt.Sprintf("… %d lines more with --full", n) }
	if n := len(said) - shownLines; n > 0 && !full {
		said = append([]string{more(n)}, said[n:]...)
	}
	if n := len(dump) - shownLines; n > 0 && !full {
		dump = append(dump[:shownLines], more(n))
	}
	for _, l := range append(said, dump...) {
		lines = append(lines, "    "+clean(strings.ReplaceAll(l, "\t", "  ")))
	}
	return lines
}
