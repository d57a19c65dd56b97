package main

import (
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
)

// panel is a trace in a picture, and what is said of it.
type panel struct {
	title string
	spans []span
}

// The measures of a picture, in pixels.
const (
	pictureWidth = 1200
	margin       = 24
	timeLeft     = 330 // where the time line begins: names are left of it
	timeWidth    = 560
	timesRight   = timeLeft + timeWidth + 64
	rowHeight    = 24
	barHeight    = 12
	indent       = 18
	panelHead    = 52 // above the rows of a panel
	pictureHead  = 70 // above the first panel
	pictureFoot  = 24
)

// Each process has a colour, in the order of their first spans. Colour-blind readers can tell
// them apart (Okabe and Ito).
var colours = []string{"#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#f0e442", "#999999"}

const failure = "#c62828"

// picture writes traces as an SVG. All are on one time line, so what happened at the
// same moment in several stands one below the other: a worker's end is a line
// through all of them. Bars of failed spans are hatched; an arrow leads from a span
// to the one that it links to, if that is in the picture.
func picture(w io.Writer, panels []panel) error {
	p := sketch{at: map[string]int{}, links: map[[2]string]place{}}
	var first, last int64
	for i, pn := range panels {
		from, to := extent(pn.spans)
		if i == 0 {
			first, last = from, to
		}
		first, last = min(first, from), max(last, to)
	}
	p.first, p.whole = first, max(last-first, 1)
	y := pictureHead
	for _, pn := range panels {
		y = p.panel(pn, y)
	}
	p.arrows(panels)
	height := y + pictureFoot

	var out strings.Builder
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" font-family="'DejaVu Sans', Verdana, sans-serif" font-size="12" fill="#222" role="img"><title>%s</title>`+"\n",
		pictureWidth, height, pictureWidth, height, html.EscapeString(panels[0].title))
	out.WriteString(`<defs>
<pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="2.4" height="6" fill="#fff" fill-opacity="0.75"/></pattern>
<marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0,0.5 L8,4 L0,7.5 z" fill="#555"/></marker>
</defs>
`)
	fmt.Fprintf(&out, `<rect width="%d" height="%d" fill="#fff"/>`+"\n", pictureWidth, height)
	p.legend(&out)
	p.axis(&out, y)
	out.WriteString(p.body.String())
	p.ends(&out, panels, y)
	out.WriteString("</svg>\n")
	_, err := io.WriteString(w, out.String())
	return err
}

// sketch is a picture that is being drawn.
type sketch struct {
	first, whole int64          // µs
	at           map[string]int // the processes, by path, in the order of their colours
	order        []string
	links        map[[2]string]place // by trace and span
	body         strings.Builder
}

// place is where a span's bar is.
type place struct{ left, right, middle float64 }

func (p *sketch) colour(path string) string {
	i, ok := p.at[path]
	if !ok {
		i = len(p.order)
		p.at[path] = i
		p.order = append(p.order, path)
	}
	return colours[i%len(colours)]
}

// x is where a moment is on the time line.
func (p *sketch) x(µs int64) float64 {
	return timeLeft + float64(µs-p.first)*timeWidth/float64(p.whole)
}

// panel draws one trace from y down, and returns where it ends.
func (p *sketch) panel(pn panel, y int) int {
	from, to := extent(pn.spans)
	fmt.Fprintf(&p.body, `<text x="%d" y="%d" font-size="14" font-weight="bold">%s</text>`+"\n", margin, y+22, html.EscapeString(pn.title))
	fmt.Fprintf(&p.body, `<text x="%d" y="%d" fill="#777" font-size="11">trace %s, %d spans, %s</text>`+"\n",
		margin, y+40, html.EscapeString(short(pn.spans[0].TraceID)), len(pn.spans), lasted(to-from))
	y += panelHead
	all := rows(pn.spans)
	p.grid(y, y+len(all)*rowHeight)
	parents := map[int]int{} // by depth: where the newest row of that depth is
	for i, r := range all {
		middle := y + rowHeight/2
		if i%2 == 0 {
			fmt.Fprintf(&p.body, `<rect x="%d" y="%d" width="%d" height="%d" fill="#000" fill-opacity="0.028"/>`+"\n", margin-8, y, pictureWidth-2*margin+16, rowHeight)
		}
		p.row(r, middle, parents)
		parents[r.depth] = middle
		y += rowHeight
	}
	return y + 12
}

// row draws one span.
func (p *sketch) row(r row, middle int, parents map[int]int) {
	path := r.resource("coppice.actor.path")
	colour := p.colour(path)
	left := margin + r.depth*indent
	if r.depth > 0 { // the elbow from its parent
		fmt.Fprintf(&p.body, `<path d="M%d,%d V%d H%d" fill="none" stroke="#bbb"/>`+"\n", left-indent+4, parents[r.depth-1]+8, middle, left-2)
	}
	fmt.Fprintf(&p.body, `<rect x="%d" y="%d" width="9" height="9" rx="2" fill="%s"/>`+"\n", left, middle-5, colour)
	fmt.Fprintf(&p.body, `<text x="%d" y="%d">%s</text>`+"\n", left+15, middle+4, html.EscapeString(r.Name))
	fmt.Fprintf(&p.body, `<text x="%d" y="%d" text-anchor="end" fill="#777" font-size="11">%s</text>`+"\n", timeLeft-12, middle+4, html.EscapeString(path))

	from := p.x(r.Start)
	width := max(p.x(r.Start+r.Duration)-from, 2.5)
	p.links[[2]string{r.TraceID, r.ID}] = place{from, from + width, float64(middle)}
	bar := func(paint string) {
		fmt.Fprintf(&p.body, `<rect x="%.1f" y="%d" width="%.1f" height="%d" rx="2" %s/>`+"\n", from, middle-barHeight/2, width, barHeight, paint)
	}
	bar(fmt.Sprintf(`fill="%s"`, colour))
	if r.failed() {
		bar(`fill="url(#hatch)"`)
	}
	fmt.Fprintf(&p.body, `<text x="%d" y="%d" text-anchor="end" fill="#444" font-size="11">%s</text>`+"\n", timesRight, middle+4, lasted(r.Duration))
	if r.failed() {
		fmt.Fprintf(&p.body, `<text x="%d" y="%d" fill="%s" font-size="11">%s</text>`+"\n", timesRight+16, middle+4, failure, html.EscapeString(why(r.span)))
	}
}

// arrows draws the links from span to span.
func (p *sketch) arrows(panels []panel) {
	for _, pn := range panels {
		for _, s := range pn.spans {
			from := p.links[[2]string{s.TraceID, s.ID}]
			for _, l := range s.links() {
				to, ok := p.links[l]
				if !ok {
					continue
				}
				// From the left end of the one to the right end of the other, in a bow.
				bow := 26 + (from.middle-to.middle)/12
				fmt.Fprintf(&p.body, `<path d="M%.1f,%.1f C%.1f,%.1f %.1f,%.1f %.1f,%.1f" fill="none" stroke="#555" stroke-dasharray="4 3" marker-end="url(#tip)"/>`+"\n",
					from.left, from.middle-barHeight/2, from.left+bow, from.middle-bow, to.right+bow, to.middle+bow/2, to.right+2, to.middle)
			}
		}
	}
}

// legend names the colours.
func (p *sketch) legend(w io.Writer) {
	x := margin
	for i, path := range p.order {
		fmt.Fprintf(w, `<rect x="%d" y="22" width="14" height="14" rx="3" fill="%s"/><text x="%d" y="34" font-size="13">%s</text>`+"\n",
			x, colours[i%len(colours)], x+20, html.EscapeString(path))
		x += 44 + 8*len(path)
	}
	fmt.Fprintf(w, `<rect x="%d" y="23" width="26" height="12" rx="2" fill="#888"/><rect x="%d" y="23" width="26" height="12" rx="2" fill="url(#hatch)"/><text x="%d" y="34" fill="#555">failed</text>`+"\n", x, x, x+32)
	x += 92
	fmt.Fprintf(w, `<path d="M%d,29 h30" stroke="#555" stroke-dasharray="4 3" marker-end="url(#tip)"/><text x="%d" y="34" fill="#555">link</text>`+"\n", x, x+36)
}

// grid draws the lines of the time line behind the rows of a panel.
func (p *sketch) grid(from, to int) {
	for t := int64(0); t <= p.whole; t += p.step() {
		fmt.Fprintf(&p.body, `<path d="M%.1f,%d V%d" stroke="#ddd"/>`+"\n", p.x(p.first+t), from, to)
	}
}

// axis writes the times below the last panel.
func (p *sketch) axis(w io.Writer, bottom int) {
	for t := int64(0); t <= p.whole; t += p.step() {
		fmt.Fprintf(w, `<text x="%.1f" y="%d" text-anchor="middle" fill="#777" font-size="11">%s</text>`+"\n",
			p.x(p.first+t), bottom+8, round(t))
	}
}

func (p *sketch) step() int64 { return tick125(max(p.whole/5, 1)) }

// tick125 is the next of 1, 2, 5, 10, 20, 50 … that is not below n.
func tick125(n int64) int64 {
	for step := int64(1); ; step *= 10 {
		for _, f := range []int64{1, 2, 5} {
			if f*step >= n {
				return f * step
			}
		}
	}
}

// round is lasted of a whole number of something.
func round(µs int64) string {
	switch {
	case µs == 0:
		return "0"
	case µs%1e6 == 0:
		return fmt.Sprintf("%d s", µs/1e6)
	case µs%1000 == 0:
		return fmt.Sprintf("%d ms", µs/1000)
	}
	return fmt.Sprintf("%d µs", µs)
}

// ends draws a line where a process ended that had spans open.
func (p *sketch) ends(w io.Writer, panels []panel, bottom int) {
	at := map[string]int64{} // by reason, the first
	for _, pn := range panels {
		for _, s := range pn.spans {
			if t, known := at[why(s)]; s.failed() && s.tag("coppice.span.recovered") != "" && (!known || s.Start+s.Duration < t) {
				at[why(s)] = s.Start + s.Duration
			}
		}
	}
	reasons := make([]string, 0, len(at))
	for r := range at {
		reasons = append(reasons, r)
	}
	slices.Sort(reasons)
	for _, r := range reasons {
		x := p.x(at[r])
		fmt.Fprintf(w, `<path d="M%.1f,%d V%d" stroke="%s" stroke-width="1.5"/><text x="%.1f" y="%d" text-anchor="middle" fill="%s" font-weight="bold">%s</text>`+"\n",
			x, pictureHead-6, bottom, failure, min(max(x, 100), pictureWidth-100), pictureHead-12, failure, html.EscapeString(r))
	}
}

// short is the beginning of an id.
func short(id string) string { return id[:min(8, len(id))] }
