package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

const (
	nameColumn = 40 // characters of the names, with what leads to them
	barColumn  = 44 // characters of the time line
)

// waterfall writes a trace as Jaeger's page shows it: the spans below their
// parents, each with its process, its bar on the trace's time line and how long it
// lasted. Bars of failed spans are of x, and the reason stands behind them.
func waterfall(w io.Writer, spans []span) {
	first, last := extent(spans)
	whole := max(last-first, 1)
	fmt.Fprintf(w, "trace %s  %s  %d spans\n", spans[0].TraceID, lasted(whole), len(spans))
	for _, r := range rows(spans) {
		draw(w, r, first, whole, spans)
	}
}

// extent returns when the first of the spans began and the last ended, in µs.
func extent(spans []span) (first, last int64) {
	first = spans[0].Start
	for _, s := range spans {
		first, last = min(first, s.Start), max(last, s.Start+s.Duration)
	}
	return first, last
}

// row is the line of a span in a picture of its trace.
type row struct {
	span
	depth int
	lead  string // what leads to it from its parent
}

// rows puts the spans of a trace below their parents. Those whose parent is not
// there are roots.
func rows(spans []span) (all []row) {
	known := map[string]bool{}
	for _, s := range spans {
		known[s.ID] = true
	}
	var below func(parent, lead string, depth int)
	below = func(parent, lead string, depth int) {
		var children []span
		for _, s := range spans {
			if p := s.parent(); p == parent || parent == "" && !known[p] {
				children = append(children, s)
			}
		}
		for i, s := range children {
			branch, on := "├ ", "│ "
			if i == len(children)-1 {
				branch, on = "└ ", "  "
			}
			if parent == "" {
				branch, on = "", ""
			}
			all = append(all, row{s, depth, lead + branch})
			below(s.ID, lead+on, depth+1)
		}
	}
	below("", "", 0)
	return all
}

// draw writes the line of one span.
func draw(w io.Writer, s row, first, whole int64, spans []span) {
	label := s.lead + s.Name
	process := "[" + s.resource("coppice.actor.path") + "]"
	gap := max(1, nameColumn-utf8.RuneCountInString(label)-len(process))
	from := int((s.Start - first) * barColumn / whole)
	from = min(from, barColumn-1)
	length := max(1, int((s.Start+s.Duration-first)*barColumn/whole)-from)
	length = min(length, barColumn-from)
	mark := "█"
	if s.failed() {
		mark = "x"
	}
	bar := strings.Repeat("·", from) + strings.Repeat(mark, length) + strings.Repeat("·", barColumn-from-length)
	line := label + strings.Repeat(" ", gap) + process + " " + bar + " " + lasted(s.Duration)
	if s.failed() {
		line += "  " + why(s.span)
	}
	for _, l := range s.links() {
		line += "  → " + target(l, spans)
	}
	fmt.Fprintln(w, line)
}

// why returns the reason of a failed span.
func why(s span) string {
	for _, key := range []string{"otel.status_description", "coppice.handoff.reason", "error.type"} {
		if v := s.tag(key); v != "" {
			return v
		}
	}
	return "failed"
}

// target names what a link leads to.
func target(l [2]string, spans []span) string {
	if i := slices.IndexFunc(spans, func(s span) bool { return s.TraceID == l[0] && s.ID == l[1] }); i >= 0 {
		return spans[i].Name + " before"
	}
	return "trace " + l[0][:min(8, len(l[0]))]
}

// lasted is a time in three digits or so.
func lasted(µs int64) string {
	d := time.Duration(µs) * time.Microsecond
	switch {
	case d >= time.Second:
		return fmt.Sprintf("%.2fs", d.Seconds())
	case d >= 10*time.Millisecond:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d >= time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(µs)/1000)
	}
	return fmt.Sprintf("%dµs", µs)
}
