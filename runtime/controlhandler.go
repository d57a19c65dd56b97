package coppice

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/netactor/registry"
	"github.com/coppice-go/coppice/runtime/internal/control"
	"github.com/coppice-go/coppice/runtime/internal/history"
	"github.com/coppice-go/coppice/tracing"
)

// controlHandler answers the requests of docs/control.md. It adds nothing that a Runtime's methods
// lack.
type controlHandler struct {
	operated
	operatedParts
	readOnly bool
	bundling sync.Mutex // held while a bundle is made
}

// operated is what an operator can do with a Runtime.
type operated interface {
	Snapshot() Tree
	Listeners() []ListenerInfo
	Events(cursor uint64) *EventReader
	Crashes() []CrashReport
	Stacks(ctx context.Context, id int) ([]byte, error)
	PprofHandler() http.Handler
	Reload(ctx context.Context) error
	Upgrade(ctx context.Context) error
	CheckUpgrade(ctx context.Context) (plan []string, err error)
	Scale(ctx context.Context, pool string, size int) error
	EndCanary(promote bool) error
	PauseListener(name string) error
	ResumeListener(name string) error
	Describe() string
	Restart(ctx context.Context, name string) error
	Stop(ctx context.Context, name string) error
	Kill(ctx context.Context, name string) error
}

// operatedParts is what the handler shows besides.
type operatedParts struct {
	log        *slog.Logger
	began      time.Time
	state      func() State
	generation func() int
	pids       func() []int // of all processes but the master
	settle     func()       // waits until the events of what was decided are there
	metrics    func() (tracing.MetricsPage, bool)
	hosts      func(ctx context.Context, what string, r *http.Request) (any, error)

	actorSystem func() *actors.System

	events   *history.Log[Event]
	lines    *history.Log[OutputLine]
	children *children
	sockets  *registry.Table
}

func newControlHandler(rt operated, parts operatedParts, readOnly bool) http.Handler {
	c := &controlHandler{operated: rt, operatedParts: parts, readOnly: readOnly}
	mux := http.NewServeMux()
	get := func(path string, answer func(*http.Request) (any, error)) {
		mux.HandleFunc("GET /v1/"+path, func(w http.ResponseWriter, r *http.Request) {
			v, err := answer(r)
			if err != nil {
				control.Error(w, httpStatus(err), err)
				return
			}
			control.Answer(w, v)
		})
	}
	get("{$}", func(*http.Request) (any, error) { return c.about(), nil })
	get("workers", func(*http.Request) (any, error) { return c.workers(), nil })
	get("listeners", func(*http.Request) (any, error) { return c.listenerRows(), nil })
	get("actors", c.serveActors)
	get("crashes", c.latestCrashes)
	get("hosts", func(r *http.Request) (any, error) { return c.hosts(r.Context(), "", r) })
	mux.HandleFunc("GET /v1/crashes/text", c.serveCrash)
	get("actors/state", c.actorState)
	get("actors/messages", c.messages)
	mux.HandleFunc("GET /v1/tree", c.serveTree)
	mux.HandleFunc("GET /v1/config", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, rt.Describe())
	})
	mux.HandleFunc("GET /v1/events", c.serveEvents)
	mux.HandleFunc("GET /v1/logs", c.serveLogs)
	mux.HandleFunc("GET /v1/stacks", c.serveStacks)
	mux.HandleFunc("GET /v1/metrics", c.serveMetrics)
	mux.HandleFunc("GET /v1/pprof/", c.write(rt.PprofHandler().ServeHTTP))
	mux.HandleFunc("GET /v1/bundle", c.write(c.serveBundle))
	c.handleWrites(mux)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		control.Error(w, http.StatusNotFound, fmt.Errorf("coppice: no such path: %s %s; docs/control.md has those that there are", r.Method, r.URL.Path))
	})
	return mux
}

// httpStatus returns the status for an error of a Runtime's method.
func httpStatus(err error) int {
	_, invalid := errors.AsType[*InvalidError](err)
	switch {
	case invalid, errors.Is(err, errParameter):
		return http.StatusBadRequest
	case errors.Is(err, ErrNoChild), errors.Is(err, ErrNoListener), errors.Is(err, ErrNoPool), errors.Is(err, actors.ErrNoActor):
		return http.StatusNotFound
	case errors.Is(err, ErrUnsupported), errors.Is(err, actors.ErrNotInspector), errors.Is(err, actors.ErrNotOperator):
		return http.StatusNotImplemented
	case errors.Is(err, context.DeadlineExceeded):
		return http.StatusGatewayTimeout
	}
	return http.StatusConflict
}

// errParameter is wrapped by the error for a parameter of a request.
var errParameter = errors.New("coppice: parameter")

func badParameter(name, value, why string) error {
	return fmt.Errorf("%w %s: %q %s", errParameter, name, value, why)
}

// numberParameter returns the parameter as a number of at least least; def if it is missing.
func numberParameter(r *http.Request, name string, def, least uint64) (uint64, error) {
	s := r.FormValue(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil || n < least {
		return 0, badParameter(name, s, fmt.Sprintf("is not a number of at least %d", least))
	}
	return n, nil
}

// aboutTree is what there is to know of a tree before it is looked at.
type aboutTree struct {
	API        int       `json:"api"` // the version of the paths
	Program    string    `json:"program"`
	PID        int       `json:"pid"`
	UID        int       `json:"uid"`
	Started    time.Time `json:"started"`
	Generation int       `json:"generation"`
	State      State     `json:"state"`
	Cursor     uint64    `json:"cursor"` // of the newest event
	ReadOnly   bool      `json:"read_only"`
	LogLevel   string    `json:"log_level,omitempty"` // set by an operator
	Go         string    `json:"go"`
	Module     string    `json:"module,omitempty"` // of the program, with its version
	Coppice    string    `json:"coppice,omitempty"`
	Revision   string    `json:"revision,omitempty"` // of the program's source
}

// programName returns the name of this program's file.
func programName() string {
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	return filepath.Base(exe)
}

func (c *controlHandler) about() aboutTree {
	a := aboutTree{
		API: 1, Program: programName(), PID: os.Getpid(), UID: os.Geteuid(), Started: c.began, Generation: c.generation(),
		State: c.state(), Cursor: c.events.Last(), ReadOnly: c.readOnly, LogLevel: logLevel(c.log),
	}
	if b, ok := debug.ReadBuildInfo(); ok {
		a.Go, a.Module = b.GoVersion, strings.TrimSpace(b.Main.Path+" "+b.Main.Version)
		const ours = "github.com/coppice-go/coppice"
		if i := slices.IndexFunc(b.Deps, func(m *debug.Module) bool { return m.Path == ours }); i >= 0 {
			a.Coppice = b.Deps[i].Version
		} else if b.Main.Path == ours {
			a.Coppice = b.Main.Version
		}
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				a.Revision = s.Value
			}
		}
	}
	return a
}

func (c *controlHandler) serveTree(w http.ResponseWriter, r *http.Request) {
	t := c.Snapshot()
	if r.FormValue("format") == "text" {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, t)
		return
	}
	control.Answer(w, t)
}

// workerRow is one process or goroutine of the tree, as /v1/workers has it.
type workerRow struct {
	Path  string     `json:"path"`
	Name  string     `json:"name"`
	Role  Role       `json:"role"`
	State State      `json:"state"`
	Since *time.Time `json:"since,omitempty"`

	ID          int    `json:"id,omitempty"`
	PID         int    `json:"pid,omitempty"`
	Pool        string `json:"pool,omitempty"`
	Slot        *int   `json:"slot,omitempty"`
	Generation  int    `json:"generation,omitempty"`
	Incarnation int    `json:"incarnation,omitempty"`
	LastExit    string `json:"last_exit,omitempty"`

	Memory *int64   `json:"memory_bytes,omitempty"` // that it costs, see Recycle.SoftMemory
	CPU    *float64 `json:"cpu_seconds,omitempty"`
	Files  *int64   `json:"files,omitempty"`
	Cgroup string   `json:"cgroup,omitempty"` // its path in the unified hierarchy, if that is not the master's
	Limits string   `json:"limits,omitempty"` // use and limits of its cgroup in one line, see ResourceUsage

	// Of all listeners whose connections are counted.
	Open    int    `json:"connections"`         // that it has
	Offered int    `json:"connections_offered"` // that wait for it
	Claimed uint64 `json:"connections_claimed"` // so far

	Requests uint64 `json:"requests,omitempty"` // that it had served at LastBeat, see Tree

	LastBeat  *time.Time `json:"last_beat,omitempty"`          // when it last answered its heartbeat; at first, when it was first to be asked
	BeatEvery float64    `json:"beat_every_seconds,omitempty"` // how often it is asked
	Unwell    string     `json:"unwell,omitempty"`             // what is wrong, as it says
}

// workers lists the processes of the tree, the master first, and workers that are goroutines.
func (c *controlHandler) workers() []workerRow {
	byID := map[int]*poolWorker{}
	for _, w := range c.children.all() {
		byID[w.hello.ID] = w
	}
	mine := control.CgroupOf(os.Getpid())
	rows, rowOf := []workerRow{}, map[uint64]int{} // by ID
	c.Snapshot().walk("", func(path string, t Tree) {
		if t.PID == 0 && t.ID == 0 {
			return
		}
		row := workerRow{
			Path: path, Name: t.Name, Role: t.Role, State: t.State, Since: t.Since, ID: t.ID, PID: t.PID,
			Generation: t.Generation, Incarnation: t.Incarnation, LastExit: t.LastExit,
		}
		if u, ok := usageOf(t.PID); ok {
			cpu := time.Duration(u.cpu).Seconds()
			row.Memory, row.CPU, row.Files = &u.memory, &cpu, &u.files
			if t.Resources != nil {
				row.Limits = t.Resources.String()
			}
			if g := control.CgroupOf(t.PID); g != mine {
				row.Cgroup = g
			}
		}
		if w := byID[t.ID]; w != nil {
			if w.driver.kind.ofConfig {
				row.Pool = w.driver.path
				if slot := w.assigned.Load().slot; slot != None {
					row.Slot = &slot
				}
			}
			if at := w.heartbeats.At(); !at.IsZero() {
				row.LastBeat, row.BeatEvery = &at, w.driver.kind.heartbeat(w.driver.pool).Every.Seconds()
			}
			row.Unwell, row.Requests = w.heartbeats.Complaint(), t.Requests
			rowOf[uint64(t.ID)] = len(rows)
		}
		rows = append(rows, row)
	})
	stats, _ := c.sockets.LastStats()
	for _, l := range stats {
		for _, w := range l.Workers {
			if i, ok := rowOf[w.Worker.ID]; ok {
				rows[i].Open += max(0, w.Counts.Open()) // below 0 while a claim is on its way
				rows[i].Offered += w.Counts.Offered
				rows[i].Claimed += w.Counts.Claimed
			}
		}
	}
	return rows
}

// listenerRow is one socket of the tree, as /v1/listeners has it. The counts are missing if its
// connections are not counted: with Shared and ReusePort, and before the first report.
type listenerRow struct {
	Name     string           `json:"name,omitempty"`
	Network  string           `json:"network"`
	Address  string           `json:"address"`
	Policy   string           `json:"policy"`
	Paused   bool             `json:"paused,omitempty"`
	Refuses  bool             `json:"refuses,omitempty"` // the pool that used it is gone for good
	Fairness float64          `json:"fairness,omitempty"`
	Counts   *listenerCounts  `json:"counts,omitempty"`
	Workers  []listenerWorker `json:"workers,omitempty"`
}

type listenerCounts struct {
	Accepted   uint64  `json:"accepted"`
	Claimed    uint64  `json:"claimed"`
	TurnedAway uint64  `json:"turned_away"`
	Reset      uint64  `json:"reset"` // by the client, before a worker had it
	Dropped    uint64  `json:"dropped"`
	Errors     uint64  `json:"errors"` // of accept
	Exhausted  uint64  `json:"exhausted"`
	GivenBack  uint64  `json:"given_back"`
	Parked     int     `json:"parked"`
	Backlog    int     `json:"backlog"` // in the kernel's queue, not accepted yet
	Waiting    int     `json:"waiting"`
	Offered    int     `json:"offered"`
	QueueAge   float64 `json:"queue_age_seconds"`
}

type listenerWorker struct {
	Name      string  `json:"name"`
	ID        uint64  `json:"id"`
	Suspended string  `json:"suspended,omitempty"` // why it gets no connections for a while
	Load      int     `json:"load"`
	Given     uint64  `json:"given"`
	Claimed   uint64  `json:"claimed"`
	Returned  uint64  `json:"returned"`
	Open      int     `json:"open"`
	Offered   int     `json:"offered"`
	QueueAge  float64 `json:"queue_age_seconds"`
}

func (c *controlHandler) listenerRows() []listenerRow {
	rows := []listenerRow{}
	for _, l := range c.Listeners() {
		row := listenerRow{
			Name: l.Name, Network: l.Addr.Network(), Address: l.Addr.String(), Policy: l.Policy.String(),
			Paused: l.Paused, Refuses: l.Refuses, Fairness: l.Fairness,
		}
		if s := l.Stats; s != nil {
			n := s.Counts
			row.Counts = &listenerCounts{
				Accepted: n.Accepted, Claimed: n.Claimed, TurnedAway: n.TurnedAway(), Reset: n.Reset, Dropped: n.Dropped,
				Errors: n.Errors, Exhausted: n.Exhausted, GivenBack: n.GivenBack, Parked: n.Parked, Backlog: s.Backlog, Waiting: n.Waiting, Offered: n.Offered, QueueAge: s.QueueAge.Seconds(),
			}
			for _, w := range s.Workers {
				row.Workers = append(row.Workers, listenerWorker{
					Name: w.Worker.Name, ID: w.Worker.ID, Suspended: w.Suspended, Load: w.Load, Given: w.Counts.Given, Claimed: w.Counts.Claimed,
					Returned: w.Counts.Returned, Open: max(0, w.Counts.Open()), Offered: w.Counts.Offered, QueueAge: w.QueueAge.Seconds(),
				})
			}
		}
		rows = append(rows, row)
	}
	return rows
}

func (c *controlHandler) latestCrashes(r *http.Request) (any, error) {
	n, err := numberParameter(r, "n", maxReports, 1)
	if err != nil {
		return nil, err
	}
	reports := append([]CrashReport{}, c.Crashes()...)
	return reports[:min(len(reports), int(n))], nil
}

// serveCrash answers with a crash report as text, and the events of the minute after it.
func (c *controlHandler) serveCrash(w http.ResponseWriter, r *http.Request) {
	number, err := numberParameter(r, "number", 0, 1)
	if err != nil {
		control.Error(w, http.StatusBadRequest, err)
		return
	}
	all := c.Crashes()
	i := slices.IndexFunc(all, func(r CrashReport) bool { return number == 0 || r.Number == number })
	if i < 0 {
		control.Error(w, http.StatusNotFound, fmt.Errorf("coppice: crash report %d is not kept: /v1/crashes has those that are", number))
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, all[i])
	for _, ev := range c.Events(0).Kept(maxListed) {
		if d := ev.Time.Sub(all[i].Time); d >= 0 && d < time.Minute {
			fmt.Fprint(w, plainText(fmt.Sprintf("  after    %s %v\n", ev.Time.UTC().Format(clockLayout), ev)))
		}
	}
}

// follows reports whether the client wants to get what comes, as a stream.
func follows(r *http.Request) bool {
	return strings.Contains(r.Header.Get("Accept"), "text/event-stream") || r.FormValue("follow") == "1"
}

// after returns the cursor from which the client reads: that of the last thing that its stream got,
// before its connection broke, or the parameter.
func after(r *http.Request) (uint64, error) {
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		if n, err := strconv.ParseUint(id, 10, 64); err == nil {
			return n, nil
		}
	}
	return numberParameter(r, "after", 0, 0)
}

// maxListed is how many entries an answer has that is no stream.
const maxListed = 10_000

func (c *controlHandler) serveEvents(w http.ResponseWriter, r *http.Request) {
	cursor, err := after(r)
	if err != nil {
		control.Error(w, http.StatusBadRequest, err)
		return
	}
	events := c.Events(cursor)
	if !follows(r) {
		control.Answer(w, append([]Event{}, events.Kept(maxListed)...))
		return
	}
	control.NewStream(w).Follow(r.Context(), events.message)
}

// message returns the next event as a message of a stream.
func (r *EventReader) message(ctx context.Context) (name string, id uint64, v any, err error) {
	ev, err := r.Next(ctx)
	return "event", ev.Cursor, ev, err
}

// logLine is an OutputLine as /v1/logs has it.
type logLine struct {
	Cursor uint64 `json:"cursor"`
	Lost   uint64 `json:"lost,omitempty"`
	OutputLine
}

// logReader reads the lines that the processes of the tree have printed.
type logReader struct {
	log          *history.Log[OutputLine]
	cursor, lost uint64 // lost: since the last line that was wanted
	names        []string
}

// line returns an entry as a line; false if the line is of a process that is not wanted.
func (r *logReader) line(e history.Entry[OutputLine]) (logLine, bool) {
	r.cursor, r.lost = e.Cursor, r.lost+e.Lost
	name := e.Value.Name
	if len(r.names) > 0 && !slices.ContainsFunc(r.names, func(n string) bool { return name == n || strings.HasPrefix(name, n+"/") }) {
		return logLine{}, false
	}
	l := logLine{e.Cursor, r.lost, e.Value}
	r.lost = 0
	return l, true
}

// kept returns the lines that are kept.
func (r *logReader) kept() []logLine {
	lines := []logLine{}
	for _, e := range r.log.Kept(r.cursor, maxListed) {
		if l, ok := r.line(e); ok {
			lines = append(lines, l)
		}
	}
	return lines
}

// message returns the next line as a message of a stream.
func (r *logReader) message(ctx context.Context) (name string, id uint64, v any, err error) {
	for {
		e, err := r.log.Next(ctx, r.cursor)
		if err != nil {
			return "", 0, nil, err
		}
		if l, ok := r.line(e); ok {
			return "line", l.Cursor, l, nil
		}
	}
}

func (c *controlHandler) serveLogs(w http.ResponseWriter, r *http.Request) {
	cursor, err := after(r)
	if err != nil {
		control.Error(w, http.StatusBadRequest, err)
		return
	}
	lines := &logReader{log: c.lines, cursor: cursor, names: r.Form["process"]}
	if !follows(r) {
		control.Answer(w, lines.kept())
		return
	}
	control.NewStream(w).Follow(r.Context(), lines.message)
}

// stacksTimeout bounds the time that a process has to print its stacks.
const stacksTimeout = 10 * time.Second

func (c *controlHandler) serveStacks(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), stacksTimeout)
	defer cancel()
	text, err := c.stacksOf(ctx, r.FormValue("process"))
	if err != nil {
		control.Error(w, httpStatus(err), err)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(text) // on an error the client is gone
}

func (c *controlHandler) stacksOf(ctx context.Context, name string) ([]byte, error) {
	if isMaster(name) {
		return c.Stacks(ctx, 0)
	}
	p, err := c.children.named(name)
	if err != nil {
		return nil, err
	}
	return c.Stacks(ctx, p.hello.ID)
}

func (c *controlHandler) serveMetrics(w http.ResponseWriter, r *http.Request) {
	page, ok := c.metrics()
	if !ok {
		control.Error(w, http.StatusNotImplemented, errors.New(`coppice: no metrics: import "github.com/coppice-go/coppice/tracing/otlp" and set OTEL_METRICS_EXPORTER=prometheus`))
		return
	}
	page.ServeMetrics(w, r)
}
