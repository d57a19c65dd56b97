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

// table renders rows below the titles, in lines of at most width characters; 0 = as long as they
// are. Columns without a text are left out.
func table(cols []column, rows [][]cell, width int, colors bool) (lines []string) {
	const least = 24 // of the last column
	titles, widths, shown := make([]cell, len(cols)), make([]int, len(cols)), []int{}
	for i, c := range cols {
		titles[i] = cell{c.title, dim}
		for _, r := range rows {
			r[i].text = clean(r[i].text)
			widths[i] = max(widths[i], utf8.RuneCountInString(r[i].text))
		}
		if widths[i] > 0 || i == 0 {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.title))
			shown = append(shown, i)
		}
	}
	for width > 0 {
		sum, worst := -2, 0
		for at, i := range shown {
			w := widths[i]
			if at > 0 && at == len(shown)-1 {
				w = min(w, least)
			}
			sum += w + 2
			if cols[i].spare > cols[shown[worst]].spare {
				worst = at
			}
		}
		if sum <= width || cols[shown[worst]].spare == 0 {
			break
		}
		shown = slices.Delete(shown, worst, worst+1)
	}
	for _, r := range append([][]cell{titles}, rows...) {
		var b strings.Builder
		used := 0
		for at, i := range shown {
			text := r[i].text
			if width > 0 {
				text = shorten(text, width-used)
			}
			pad := strings.Repeat(" ", max(0, widths[i]-utf8.RuneCountInString(text)))
			if width > 0 {
				pad = pad[:min(len(pad), max(0, width-used-utf8.RuneCountInString(text)))]
			}
			switch text = paint(text, r[i].color, colors); {
			case cols[i].right:
				b.WriteString(pad + text)
			case at == len(shown)-1:
				b.WriteString(text)
			default:
				b.WriteString(text + pad)
			}
			if used += widths[i] + 2; width == 0 || used < width {
				b.WriteString("  ")
			}
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
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

// clean makes one line of a text, without what a terminal would take for a command: a process of the
// tree may print anything.
func clean(text string) string {
	return cleanLines(strings.NewReplacer("\t", " ", "\n", " ").Replace(text))
}

// cleanLines is clean for a text of several lines.
func cleanLines(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' && r != '\n' || r == utf8.RuneError || unicode.Is(unicode.Bidi_Control, r) {
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

func memory(w worker) string {
	if w.Memory == nil {
		return ""
	}
	return size(*w.Memory)
}

// row makes cells of texts, of numbers and of what they point to; 0 and nil show as nothing.
func row(values ...any) []cell {
	cells := make([]cell, len(values))
	for i, v := range values {
		switch v := v.(type) {
		case cell:
			cells[i] = v
		case string:
			cells[i].text = v
		case int:
			if v != 0 {
				cells[i].text = fmt.Sprint(v)
			}
		case *int64:
			if v != nil {
				cells[i].text = fmt.Sprint(*v)
			}
		}
	}
	return cells
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
