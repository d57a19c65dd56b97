package main

import (
	"bytes"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// pair is a line of the page: a row beside a peer's, in the same rounds.
type pair struct {
	section, what string
	row, peer     string
	column        column
	goal          string // what the ratio is to be; "" without
}

// column is what of two rows is compared.
type column struct {
	name string
	of   func(result) float64
	unit string
	more bool // more is better: the ratio is the peer's by the row's
}

var (
	byCPU    = column{name: "CPU", of: func(r result) float64 { return r.CPU / 1e3 }, unit: "µs"}
	byMedian = column{name: "p50", of: func(r result) float64 { return r.P50 }, unit: "µs"}
	byValue  = column{name: "value", of: func(r result) float64 { return r.Value }}
	byRate   = column{name: "rate", of: func(r result) float64 { return r.Value }, unit: "/s", more: true}
)

// pairs are the lines of the page. Each ratio is below 1 where Coppice is better.
var pairs = []pair{
	{"Connections", "keep-alive request, beside plain net/http", "http_keepalive_coppice", "http_keepalive_plain", byCPU, "≤ 1.03"},
	{"Connections", "`http.ServeFile` of 256 MiB, beside plain net/http", "http_file_coppice", "http_file_plain", byCPU, "≤ 1.02"},
	{"Connections", "accepted, passed, claimed, served: beside the same in C", "accept_round-robin", "peer_c_accept_claim", byCPU, "≤ 1.25"},
	{"Connections", "the same, beside plain Go processes that accept on one socket, as with tableflip", "accept_round-robin", "peer_go_accept_shared", byCPU, "≤ 0.95"},
	{"Connections", "the same, beside Node's round robin", "accept_round-robin", "peer_node_accept", byCPU, ""},
	{"Messages", "64 bytes told to an actor of another process, beside protoactor's remote", "process_tell_64", "peer_remote_tell_64", byCPU, "≤ 0.25"},
	{"Messages", "asked, 64 in flight, beside protoactor's remote", "process_ask_64", "peer_remote_ask_64", byCPU, "≤ 0.33"},
	{"Messages", "asked, one at a time, beside protoactor's remote", "process_ask_1", "peer_remote_ask_1", byMedian, ""},
	{"Messages", "the same, beside a bare socket between two Go processes", "process_ask_1", "peer_go_roundtrip_64", byMedian, "≤ 1.3"},
	{"Messages", "64 bytes told by one worker to another, beside protoactor's remote", "sibling_tell_64", "peer_remote_tell_64", byCPU, ""},
	{"Messages", "told within a process, beside protoactor", "local_tell", "bare_tell", byCPU, "≤ 0.9"},
	{"Messages", "asked within a process, beside protoactor", "local_ask", "bare_ask", byCPU, "≤ 0.77"},
	{"Starts", "a program with a tree until its `main`, beside one that imports protoactor's `actor` and net/http", "start_runtime", "peer_start_actor", byCPU, "≤ 1.15"},
	{"Starts", "the same with `tracing/otlp`", "start_otlp", "peer_start_actor", byCPU, ""},
	{"Starts", "SIGKILL until the replacement serves, beside the same program until its `main`", "respawn_cold", "start_self", byMedian, "≤ 1.25"},
	{"Starts", "the same, beside Node's cluster", "respawn_cold", "node_respawn", byMedian, ""},
	{"Starts", "a death that is known until a spare serves, beside the program until its `main`", "respawn_spare", "start_self", byMedian, ""},
	{"Starts", "first start of a tree with 8 workers, beside one with 1", "start_tree_8", "start_tree_1", byMedian, "≤ 2"},
	{"Starts", "memory that an idle worker has written, beside a program with a bare HTTP server", "memory_worker", "peer_memory_http", byValue, "≤ 1.3"},
}

var page struct{ write string }

func pageFlags(fs *flag.FlagSet) {
	fs.StringVar(&page.write, "write", "", "`directory` of performance.md, whose tables and chart are replaced; without it they are printed")
}

// pageRows are the rows of all pairs, and those that grow, each with the flags of its command as
// they are by default.
func pageRows() (rows []row) {
	wanted := map[string]bool{}
	for _, p := range pairs {
		wanted[p.row], wanted[p.peer] = true, true
	}
	for _, cmd := range commands() {
		if cmd.page {
			continue
		}
		for _, r := range cmd.rows() {
			if !wanted[r.name] && !strings.HasPrefix(r.name, "growth_") {
				continue
			}
			rows = append(rows, row{r.name, func(d time.Duration) (result, error) {
				if cmd.flags != nil {
					cmd.flags(flag.NewFlagSet("", flag.ContinueOnError))
				}
				return r.run(d)
			}})
		}
	}
	return rows
}

// quartiles returns the first quartile, the median and the third of vs, which it sorts.
func quartiles(vs []float64) (q [3]float64) {
	slices.Sort(vs)
	for i := range q {
		at := float64(len(vs)-1) * float64(i+1) / 4
		low := int(at)
		q[i] = vs[low] + (vs[min(low+1, len(vs)-1)]-vs[low])*(at-float64(low))
	}
	return q
}

// line is a pair with what was measured.
type line struct {
	pair
	ours, peers, ratio [3]float64 // quartiles
	rounds             int
}

// lines pairs what was measured in the same round.
func lines(all map[string][]result) (ls []line) {
	for _, p := range pairs {
		a, b := all[p.row], all[p.peer]
		n := min(len(a), len(b))
		if n == 0 {
			continue
		}
		l := line{pair: p, rounds: n}
		var as, bs, ratios []float64
		for i := range n {
			x, y := p.column.of(a[i]), p.column.of(b[i])
			as, bs = append(as, x), append(bs, y)
			if p.column.more {
				x, y = y, x
			}
			ratios = append(ratios, x/y)
		}
		if l.pair.column.unit == "" {
			l.pair.column.unit = a[0].Unit
		}
		l.ours, l.peers, l.ratio = quartiles(as), quartiles(bs), quartiles(ratios)
		ls = append(ls, l)
	}
	return ls
}

// printPage prints the page, or writes it.
func printPage(all map[string][]result, load string) error {
	ls := lines(all)
	sections := map[string]string{"machine": machine(load), "Growth": growthTable(all)}
	for _, s := range []string{"Connections", "Messages", "Starts"} {
		var b strings.Builder
		b.WriteString("| | of | Coppice | peer | ratio [quartiles] | goal |\n| --- | --- | --- | --- | --- | --- |\n")
		for _, l := range ls {
			if l.section == s {
				fmt.Fprintf(&b, "| %s | %s | %s | %s | **%.2f** [%.2f–%.2f] | %s |\n", l.what, l.column.name,
					figure(l.ours[1], l.column.unit), figure(l.peers[1], l.column.unit), l.ratio[1], l.ratio[0], l.ratio[2], l.goal)
			}
		}
		sections[s] = b.String()
	}
	if page.write == "" {
		for _, s := range []string{"machine", "Connections", "Messages", "Starts", "Growth"} {
			fmt.Println(sections[s])
		}
		return nil
	}
	name := filepath.Join(page.write, "performance.md")
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for s, table := range sections {
		begin := fmt.Appendf(nil, "<!-- yardstick: %s -->\n", s)
		head, rest, ok := bytes.Cut(text, begin)
		_, tail, closed := bytes.Cut(rest, []byte("<!-- end -->\n"))
		if !ok || !closed {
			return fmt.Errorf("%s has no place for %s", name, s)
		}
		text = slices.Concat(head, begin, []byte(table), []byte("<!-- end -->\n"), tail)
	}
	if err := os.WriteFile(name, text, 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(page.write, "performance.svg"), []byte(chart(ls, all)), 0o644)
}

// figure is v with three digits, or all before the point.
func figure(v float64, unit string) string {
	if unit == "µs" && v >= 1000 {
		v, unit = v/1000, "ms"
	}
	if v >= 1000 {
		return fmt.Sprintf("%.0f %s", v, unit)
	}
	return fmt.Sprintf("%.3g %s", v, unit)
}

// machine says where and when the page was measured, and with what.
func machine(load string) string {
	first := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).Output()
		if err != nil {
			return name + " is not there"
		}
		text, _, _ := strings.Cut(string(out), "\n")
		return text
	}
	cpu := "a processor of unknown kind"
	b, _ := os.ReadFile("/proc/cpuinfo")
	for l := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(l, ":"); ok && strings.TrimSpace(k) == "model name" {
			cpu = strings.TrimSpace(v)
		}
	}
	return fmt.Sprintf("%s, %d × %s, %s; %s, Node %s, %s; load average %s at the begin, %s at the end.\n",
		time.Now().Format("January 2, 2006"), runtime.NumCPU(), cpu, first("uname", "-sr"), runtime.Version(),
		first("node", "--version"), first("gcc", "--version"), load, loadAverage())
}

func loadAverage() string {
	b, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

// growth is the medians of the processor time of the rows of one kind, by their size.
type growth struct {
	name  string
	sizes []int
	ms    []float64
}

func growthsOf(all map[string][]result) (gs []growth) {
	for _, r := range growthRows() {
		of := all[r.name]
		if len(of) == 0 {
			continue
		}
		var kind string
		var size int
		_, _ = fmt.Sscanf(strings.ReplaceAll(r.name, "_", " "), "growth %s %d", &kind, &size)
		var vs []float64
		for _, v := range of {
			vs = append(vs, v.CPU/1e6)
		}
		if len(gs) == 0 || gs[len(gs)-1].name != kind {
			gs = append(gs, growth{name: kind})
		}
		g := &gs[len(gs)-1]
		g.sizes, g.ms = append(g.sizes, size), append(g.ms, quartiles(vs)[1])
	}
	return gs
}

// growthNames say what a growth is.
var growthNames = map[string]string{
	"reload": "reload of a tree of worker processes", "snapshot": "`Snapshot` of a tree of goroutine workers", "actors": "`System.Actors` of a process",
}

func growthTable(all map[string][]result) string {
	var b strings.Builder
	b.WriteString("| | how many: CPU for each | the last by the one before it |\n| --- | --- | --- |\n")
	for _, g := range growthsOf(all) {
		var cells []string
		for i, n := range g.sizes {
			cells = append(cells, fmt.Sprintf("%d: %s", n, figure(g.ms[i]*1e3/float64(n), "µs")))
		}
		last := len(g.ms) - 1
		if last < 1 {
			continue
		}
		each := func(i int) float64 { return g.ms[i] / float64(g.sizes[i]) }
		fmt.Fprintf(&b, "| %s | %s | %.2f × for each |\n", growthNames[g.name], strings.Join(cells, "; "), each(last)/each(last-1))
	}
	return b.String()
}

// chart draws the ratios as bars with their quartiles, on a scale on which 1/2 and 2 are as far
// from 1, and what grows as lines, each in parts of its largest.
func chart(ls []line, all map[string][]result) string {
	const left, width, high = 430, 360, 22
	var b strings.Builder
	bars := len(ls)*high + 40
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", left+width+70, bars+240)
	b.WriteString(`<rect width="100%" height="100%" fill="#fff"/>` + "\n")
	x := func(ratio float64) float64 { return left + width*(math.Log2(min(max(ratio, 1./16), 4))+4)/6 }
	for _, r := range []float64{1. / 16, 1. / 8, 1. / 4, 1. / 2, 1, 2, 4} {
		fmt.Fprintf(&b, `<line x1="%.0f" x2="%.0f" y1="24" y2="%d" stroke="#ccc"/><text x="%.0f" y="16" text-anchor="middle">%.3g×</text>`+"\n", x(r), x(r), bars-10, x(r), r)
	}
	for i, l := range ls {
		y := 30 + i*high
		color := "#2a7" // better than the peer
		if l.ratio[1] > 1 {
			color = "#c73"
		}
		from, to := x(min(1, l.ratio[1])), x(max(1, l.ratio[1]))
		fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="end">%s / %s (%s)</text><rect x="%.1f" y="%d" width="%.1f" height="12" fill="%s"/>`+
			`<line x1="%.1f" x2="%.1f" y1="%d" y2="%d" stroke="#000"/><text x="%d" y="%d">%.2f</text>`+"\n",
			left-8, y+11, l.row, l.peer, l.column.name, from, y, max(1, to-from), color, x(l.ratio[0]), x(l.ratio[2]), y+6, y+6, left+width+8, y+11, l.ratio[1])
	}
	for i, g := range growthsOf(all) {
		x0, y0 := 40+i*280, bars+200
		last := len(g.sizes) - 1
		var points []string
		for j, n := range g.sizes {
			points = append(points, fmt.Sprintf("%.1f,%.1f", float64(x0)+220*float64(n)/float64(g.sizes[last]), float64(y0)-150*g.ms[j]/slices.Max(g.ms)))
		}
		fmt.Fprintf(&b, `<polyline points="%d,%d %d,%d %d,%d" fill="none" stroke="#999"/><line x1="%d" y1="%d" x2="%d" y2="%d" stroke="#ccc"/>`+
			`<polyline points="%s" fill="none" stroke="#27c" stroke-width="2"/><text x="%d" y="%d">%s: %d, %s of CPU</text>`+"\n",
			x0, y0-150, x0, y0, x0+220, y0, x0, y0, x0+220, y0-150, strings.Join(points, " "), x0, y0+20, g.name, g.sizes[last], figure(g.ms[last]*1e3, "µs"))
	}
	b.WriteString("</svg>\n")
	return b.String()
}
