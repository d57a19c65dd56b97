package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// column is a column of a table. Where the width is too small, the column with the highest spare
// goes first; one with 0 stays, and the last is cut.
type column struct {
	title string
	right bool
	spare int
}

// cell is a text with a color: an SGR parameter (ECMA-48), "" = none.
type cell struct{ text, color string }

const (
	red    = "31"
	green  = "32"
	yellow = "33"
	dim    = "2"
)

func plain(text string) cell { return cell{text: text} }

// table renders rows below the titles, in lines of at most width characters; 0 = as long as they
// are. Columns without a text are left out.
func table(cols []column, rows [][]cell, width int, colors bool) []string {
	shown := []int{}
	widths := make([]int, len(cols))
	for i := range cols {
		for _, r := range rows {
			r[i].text = clean(r[i].text)
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i].text))
		}
		if widths[i] > 0 || i == 0 {
			widths[i] = max(widths[i], utf8.RuneCountInString(cols[i].title))
			shown = append(shown, i)
		}
	}
	const least = 24 // of the last column
	for width > 0 {
		sum, worst := 0, -1
		for at, i := range shown {
			if w := widths[i]; at == len(shown)-1 && i > 0 {
				sum += min(w, least)
			} else {
				sum += w + 2
			}
			if cols[i].spare > 0 && (worst < 0 || cols[i].spare > cols[shown[worst]].spare) {
				worst = at
			}
		}
		if sum <= width || worst < 0 {
			break
		}
		shown = slices.Delete(shown, worst, worst+1)
	}
	titles := make([]cell, len(cols))
	for i, c := range cols {
		titles[i] = cell{c.title, dim}
	}
	lines := make([]string, 0, len(rows)+1)
	for _, r := range append([][]cell{titles}, rows...) {
		var b strings.Builder
		used := 0
		for at, i := range shown {
			text, last := r[i].text, at == len(shown)-1
			if last && width > 0 {
				text = shorten(text, width-used)
			}
			pad := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(text)))
			painted := paint(text, r[i].color, colors)
			switch {
			case cols[i].right:
				b.WriteString(pad + painted)
			case last:
				b.WriteString(painted)
			default:
				b.WriteString(painted + pad)
			}
			if !last {
				b.WriteString("  ")
			}
			used += widths[i] + 2
		}
		line := strings.TrimRight(b.String(), " ")
		if width > 0 && used-2 > width && len(shown) == 1 { // a single column
			line = shorten(line, width)
		}
		lines = append(lines, line)
	}
	return lines
}

func paint(text, color string, colors bool) string {
	if !colors || color == "" || text == "" {
		return text
	}
	return "\x1b[" + color + "m" + text + "\x1b[0m"
}

// shorten cuts a text to at most width characters.
func shorten(text string, width int) string {
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	if width < 1 {
		return ""
	}
	return string([]rune(text)[:width-1]) + "…"
}

// clean replaces what a terminal would take for a command: a process of the tree may print
// anything.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' {
			return ' '
		}
		if unicode.IsControl(r) || r == utf8.RuneError || unicode.Is(unicode.Bidi_Control, r) {
			return '?'
		}
		return r
	}, text)
}

// stateCell shows a state in its color.
func stateCell(state string) cell {
	switch state {
	case "running":
		return cell{state, green}
	case "down":
		return cell{state, red}
	}
	return cell{state, yellow}
}

// span shows a duration in at most two units.
func span(d time.Duration) string {
	switch d = max(0, d); {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Minute:
		return d.Round(time.Second).String()
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%02dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

func seconds(s float64) string { return span(time.Duration(s * float64(time.Second))) }

func size(bytes int64) string { return fmt.Sprintf("%.1fM", float64(bytes)/(1<<20)) }

// number shows n; "" = 0.
func number[N int | int64 | uint64](n N) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

// ago shows how long ago a time was; "" = it is not known.
func ago(now time.Time, at *time.Time) string {
	if at == nil {
		return ""
	}
	return span(now.Sub(*at))
}

// count shows a number of things.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
