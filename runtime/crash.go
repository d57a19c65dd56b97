package coppice

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/coppice-go/coppice/supervisor"
)

// A CrashReport is what is known of a child that ended otherwise than it should have: a worker, the
// listener process or a Process. There is a report for each end whose reason is not normal, also
// before the child was ready. There is none for a child that was killed because it was no longer
// wanted. See Hooks.Crash. It can be read as text (String) and as JSON.
type CrashReport struct {
	Number   uint64    `json:"number,omitempty"` // of [Runtime.Crashes]: it counts the reports of the tree, from 1
	Time     time.Time `json:"time"`             // of the end
	Identity           // of the child
	Role     string    `json:"role"`  // worker, listener, process
	Ready    bool      `json:"ready"` // false = it ended while it started

	Uptime time.Duration     `json:"-" cbor:"uptime"`
	Reason supervisor.Reason `json:"-"`
	Exit   Exit              `json:"-" cbor:"exit"` // PID 0 = a goroutine

	// Lines are the last lines that the child printed, at most 100 and 64 KiB, without those in
	// Dump. Before is how many more lines it had printed. Lost is how many of all its lines
	// Config.Output has not taken.
	Lines  []OutputLine `json:"lines,omitempty"`
	Before uint64       `json:"lines_before,omitempty"`
	Lost   uint64       `json:"lines_lost,omitempty"`

	// Dump is what the child printed on standard error from Exit.Words on: the stacks of
	// goroutines, at most 64 KiB from the beginning. Cut is how many further bytes there were.
	Dump string `json:"dump,omitempty"`
	Cut  int    `json:"dump_cut_bytes,omitempty"`

	// Conns are the connections that the child had, by listener, as the listener process knows
	// them. It is nil if the child had none, and if none is dispatched (Shared, ReusePort).
	Conns []ListenerConns `json:"held,omitempty"`

	// Asked are the actors in the child whose answers the master was waiting for.
	Asked []string `json:"asked,omitempty"`

	// Traces are the IDs of the traces that the child was working on, newest first, at most 8, and
	// Spans the outermost of its open spans. They are known while tracing is on, for sampled
	// traces.
	Traces []string   `json:"traces,omitempty"`
	Spans  []LostSpan `json:"spans,omitempty"`

	// Serving are the requests that a worker was serving by [Worker.Serve], oldest first, at most
	// 64; More is how many more there were.
	Serving []ServedRequest `json:"serving,omitempty"`
	More    int             `json:"serving_more,omitempty"`

	// Usage is what the process used in the minute before, every 10 s: nothing of one that lived
	// for less.
	Usage []Usage `json:"usage,omitempty"`

	// Cgroup is what the kernel had counted in the process's cgroup, in one line. It is empty for
	// the master's own cgroup.
	Cgroup string `json:"cgroup,omitempty"`

	Build string `json:"build,omitempty"` // the Go build ID of a worker's program
	Core  string `json:"core,omitempty"`  // where the kernel has put the core dump, if there is one

	// Events are the latest events of the tree before the end, oldest first, at most 32: a line for
	// each.
	Events []string `json:"events,omitempty"`
}

// A LostSpan is a span that a child had open when it ended. The child has chosen its name.
type LostSpan struct {
	Name  string    `json:"name"`
	Start time.Time `json:"start"`
	Trace string    `json:"trace_id"`
	Span  string    `json:"span_id"`
}

// Usage is what a process used at a time.
type Usage struct {
	Time   time.Time     `json:"time"`
	Memory int64         `json:"memory_bytes"` // that it cost; see [Recycle]
	CPU    time.Duration `json:"-" cbor:"cpu"` // so far
	Files  int64         `json:"files"`        // open descriptors
}

// MarshalJSON encodes durations as seconds.
func (u Usage) MarshalJSON() ([]byte, error) {
	type plain Usage
	return json.Marshal(struct {
		plain
		CPU float64 `json:"cpu_seconds"`
	}{plain(u), u.CPU.Seconds()})
}

// ListenerConns are a worker's connections at one listener. Connections that it claimed in its last
// milliseconds may still be counted as Offered.
type ListenerConns struct {
	Listener string `json:"listener"`
	Open     int    `json:"open"`    // claimed: lost
	Offered  int    `json:"offered"` // not claimed: they go to others
}

// String is the report as a text of several lines. What a terminal would obey is replaced: much of
// it is what the child has printed.
func (r CrashReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "crash: %s (%s): %v\n", r.Tag(), r.Role, r.Reason)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-9s"+format+"\n", append([]any{name}, args...)...)
	}
	row("time", "%s", r.Time.UTC().Format(timeLayout))
	up := "ready"
	if !r.Ready {
		up = "not ready"
	}
	row("life", "incarnation %d, %v, %s", r.Incarnation, r.Uptime.Round(time.Millisecond), up)
	if r.Exit.PID != 0 {
		row("end", "pid %d: %v", r.Exit.PID, r.Exit)
		row("usage", "%v user, %v system, %.1f MiB resident", r.Exit.UserTime, r.Exit.SystemTime, float64(r.Exit.MaxRSS)/(1<<20))
	}
	if r.Build != "" {
		row("build", "%s", r.Build)
	}
	if r.Core != "" {
		row("core", "%s", r.Core)
	}
	for i, u := range r.Usage {
		cpu := ""
		if i > 0 {
			before := r.Usage[i-1]
			cpu = fmt.Sprintf(", %.0f %% of a CPU since", 100*float64(u.CPU-before.CPU)/float64(max(u.Time.Sub(before.Time), 1)))
		}
		row("used", "%v before: %.1f MiB, %d descriptors%s", r.Time.Sub(u.Time).Round(time.Second), float64(u.Memory)/(1<<20), u.Files, cpu)
	}
	if r.Cgroup != "" {
		row("cgroup", "%s", r.Cgroup)
	}
	if r.Exit.Resources != nil {
		row("limits", "%v", r.Exit.Resources)
	}
	if len(r.Exit.Steps) > 0 {
		row("steps", "%s", strings.Join(stepTexts(r.Exit.Steps), ", "))
	}
	for _, h := range r.Conns {
		row("held", "%s: %d connections, %d offered", h.Listener, h.Open, h.Offered)
	}
	if len(r.Asked) > 0 {
		row("asked", "%s", strings.Join(r.Asked, " "))
	}
	if len(r.Traces) > 0 {
		row("traces", "%s", strings.Join(r.Traces, " "))
	}
	for _, s := range r.Serving {
		trace := ""
		if s.Trace != "" {
			trace = ", trace " + s.Trace
		}
		row("serving", "%q for %v%s", s.Key, s.Age.Round(time.Millisecond), trace)
	}
	if r.More > 0 {
		row("serving", "%d more", r.More)
	}
	for _, s := range r.Spans {
		row("span", "%s, open for %v, trace %s", s.Name, r.Time.Sub(s.Start).Round(time.Millisecond), s.Trace)
	}
	for _, e := range r.Events {
		row("event", "%s", e)
	}
	if len(r.Lines) > 0 || r.Before+r.Lost > 0 {
		row("output", "%d lines, %d before, %d lost", len(r.Lines), r.Before, r.Lost)
	}
	for _, l := range r.Lines {
		fmt.Fprintf(&b, "    %s %s| %s\n", l.Time.UTC().Format(clockLayout), l.Stream, l.Text)
	}
	if r.Dump != "" {
		row("dump", "%d bytes, %d cut", len(r.Dump), r.Cut)
		for line := range strings.Lines(r.Dump) {
			fmt.Fprintf(&b, "    %s\n", strings.TrimSuffix(line, "\n"))
		}
	}
	return plainText(b.String())
}

// plainText replaces what is no text but for tabs and line ends.
func plainText(text string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) && c != '\t' && c != '\n' || c == utf8.RuneError || unicode.Is(unicode.Bidi_Control, c) {
			return '?'
		}
		return c
	}, text)
}

const (
	timeLayout  = "2006-01-02T15:04:05.000Z07:00"
	clockLayout = "15:04:05.000"
)

func stepTexts(steps []StopStep) []string {
	texts := make([]string, len(steps))
	for i, s := range steps {
		texts[i] = s.String()
	}
	return texts
}

// MarshalJSON encodes the report. Times and sizes name their units.
func (r CrashReport) MarshalJSON() ([]byte, error) {
	type byTags CrashReport
	type reason struct {
		Kind string `json:"kind"`
		Text string `json:"text"`
	}
	return json.Marshal(struct { // what is encoded otherwise than by tags, and what is read first
		Number uint64    `json:"number,omitempty"`
		Time   time.Time `json:"time"`
		Identity
		PID         any       `json:"pid,omitempty"` // it is in exit
		Incarnation int       `json:"incarnation"`
		Slot        int       `json:"slot"`
		Uptime      float64   `json:"uptime_seconds"`
		Reason      reason    `json:"reason"`
		Exit        *exitJSON `json:"exit,omitempty"`
		byTags
	}{
		Number: r.Number, Time: r.Time.UTC(), Identity: r.Identity, Incarnation: r.Incarnation, Slot: r.Slot, Uptime: r.Uptime.Seconds(),
		Reason: reason{r.Reason.Kind.String(), r.Reason.String()}, Exit: r.Exit.encoded(), byTags: byTags(r),
	})
}

// exitJSON is an Exit as it is encoded: few of its fields are encoded as they are.
type exitJSON struct {
	PID        int        `json:"pid"`
	Code       *int       `json:"code,omitempty"`
	Signal     string     `json:"signal,omitempty"`
	Core       bool       `json:"core,omitempty"`
	UserTime   float64    `json:"user_seconds"`
	SystemTime float64    `json:"system_seconds"`
	MaxRSS     int64      `json:"max_rss_bytes"`
	Words      string     `json:"words,omitempty"`
	Killed     KillReason `json:"killed,omitempty"`
	Steps      []stepJSON `json:"steps,omitempty"`
	OOM        OOM        `json:"oom,omitempty"`

	Resources *ResourceUsage `json:"resources,omitempty"`
	Lost      string         `json:"lost,omitempty"`
}

type stepJSON struct {
	What  string  `json:"what"`
	After float64 `json:"after_seconds"`
}

// encoded returns nil for the end of a goroutine.
func (e Exit) encoded() *exitJSON {
	if e.PID == 0 {
		return nil
	}
	x := &exitJSON{
		PID: e.PID, Core: e.Core, UserTime: e.UserTime.Seconds(), SystemTime: e.SystemTime.Seconds(),
		MaxRSS: e.MaxRSS, Words: e.Words, Killed: e.Killed, OOM: e.OOM, Resources: e.Resources,
	}
	switch {
	case e.Lost != nil:
		x.Lost = e.Lost.Error()
	case e.Signal != 0:
		x.Signal = signalName(e.Signal)
	default:
		x.Code = &e.Code
	}
	for _, s := range e.Steps {
		x.Steps = append(x.Steps, stepJSON{s.What, s.After.Seconds()})
	}
	return x
}

// isCrash reports whether an end is to be reported.
func isCrash(r supervisor.Reason, e Exit) bool {
	return !r.IsNormal() && e.Killed != KilledBrutal && e.Killed != KilledUnwanted
}
