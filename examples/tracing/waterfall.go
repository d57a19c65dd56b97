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
	first, last := spans[0].Start, int64(0)
	known := map[string]bool{}
	for _, s := range spans {
		first, last = min(first, s.Start), max(last, s.Start+s.Duration)
		known[s.ID] = true
	}
	whole := max(last-first, 1)
	fmt.Fprintf(w, "trace %s  %s  %d spans\n", spans[0].TraceID, lasted(whole), len(spans))

	var draw func(parent, lead string)
	draw = func(parent, lead string) {
		var children []span
		for _, s := range spans {
			if p := s.parent(); p == parent || parent == "" && !known[p] {
				children = append(children, s)
			}
		}
		for i, s := range children {
			branch, below := "├ ", "│ "
			if i == len(children)-1 {
				branch, below = "└ ", "  "
			}
			if parent == "" {
				branch, below = "", ""
			}
			draw1(w, s, lead+branch, first, whole, spans)
			draw(s.ID, lead+below)
		}
	}
	draw("", "")
}

// draw1 writes the line of one span.
func draw1(w io.Writer, s span, lead string, first, whole int64, spans []span) {
	label := lead + s.Name
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
		line += "  " + why(s)
	}
	for _, l := range s.links() {
		line += "  → " + target(l, spans)
	}
	fmt.Fprintln(w, line)
}

// why says why a span failed.
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
