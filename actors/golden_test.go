package actors_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/supervisor"
)

// TestGolden plays recordings of Erlang/OTP (supervisor/testdata) on running supervisors
// whose children are actors, and compares what starts and ends, in which order and for
// which reasons, the children, and the answers. Package supervisor plays all of them on
// its rules; left out here is what a running tree can not be made to do at a given moment
// (two ends at once, a call in the middle of a restart), what is not about children
// (specs that are refused), and what a child of ours does not have (a start that
// returns more, or nonsense).
func TestGolden(t *testing.T) {
	played := 0
	for _, file := range []string{"otp", "more"} {
		data, err := os.ReadFile("../supervisor/testdata/" + file + ".jsonl")
		if err != nil {
			t.Fatal(err)
		}
		for line := range bytes.Lines(data) {
			var rec recording
			if err := json.Unmarshal(line, &rec); err != nil {
				t.Fatal(err)
			}
			if rec.playable() {
				played++
				t.Run(fmt.Sprint(rec.Seed), func(t *testing.T) { newTheatre(t).play(rec) })
			}
		}
	}
	if played < 45 {
		t.Errorf("%d recordings, the others are left out: there were 45", played)
	}
}

// recording is one line of a file of recordings.
type recording struct {
	Seed   any
	Script []string
	Expect []recordedStep
}

// recordedStep is what one command of a script led to, in the words of the recordings.
type recordedStep struct {
	R   string   // the reply
	Sup string   // up, "down REASON", none
	Ch  string   // the children, in start order
	Ev  []string // starts and stops, in order
}

func (r recording) playable() bool {
	for _, line := range r.Script {
		a := strings.Fields(line)
		switch {
		case slices.Contains([]string{"burst", "race", "stray", "supkill", "spawn", "get"}, a[0]),
			slices.Contains(a, "simple_one_for_one"), slices.Contains(a, "extra"), slices.Contains(a, "badreturn"),
			a[0] == "stop" && len(a) > 1,                            // a parent of ours has one reason only
			a[0] == "sup" && (a[7] == "brutal_kill" || a[7] == "0"): // its children end in the order of Erlang's links: nobody's promise
			return false
		}
	}
	for _, e := range r.Expect {
		for _, bad := range []string{"supervisor_data", "start_spec", "bad_combination", "invalid_"} {
			if strings.Contains(e.R, bad) {
				return false
			}
		}
	}
	return true
}

// theatre is a tree of supervisors and actors that plays a script.
type theatre struct {
	t      *testing.T
	s      *actors.System
	clock  *fakeClock
	root   *supervisor.Supervisor
	params map[string]*part // by path; "" is the root

	mu    sync.Mutex
	plans map[string][]string
	count map[string]int            // incarnations that came up
	parts map[string]*player        // the latest
	sups  map[string]supervisorPart // the latest
	ev    []string
	more  chan struct{} // closed and renewed with each event
}

// part is a child as declared.
type part struct {
	path   string
	spec   supervisor.ChildSpec
	onstop string
	sub    *supervisor.Spec // of a supervisor
	kids   []string
}

// player is one incarnation of an actor; supervisorPart one of a supervisor.
type player struct {
	supervisor.Instance
	th    *theatre
	part  *part
	pid   *actor.PID
	asked atomic.Bool   // to stop
	hang  chan struct{} // closed by Kill: a handler that does not react goes on no longer
	once  sync.Once
	done  chan struct{}
}

type supervisorPart struct {
	*supervisor.Supervisor
	done chan struct{}
}

func (p *player) Done() <-chan struct{}   { return p.done }
func (p *player) Leaked() <-chan struct{} { return nil } // Done waits for it

func (p supervisorPart) Done() <-chan struct{} { return p.done }

func (p *player) Stop() {
	p.asked.Store(true)
	if p.part.spec.Shutdown > 0 && p.th.onStop(p.part) == "ignore" {
		// Lets its time pass. Ends with the actor.
		ctx, cancel := context.WithCancel(context.Background())
		go func() { <-p.done; cancel() }()
		go func() {
			if p.th.clock.waitTimers(ctx, 1) == nil {
				p.th.clock.advance(p.part.spec.Shutdown)
			}
		}()
	}
	p.Instance.Stop()
}

func (p *player) Kill() {
	p.Instance.Kill()
	p.once.Do(func() { close(p.hang) })
}

func newTheatre(t *testing.T) *theatre {
	return &theatre{
		t: t, s: local(t), clock: newFakeClock(),
		params: map[string]*part{"": {sub: &supervisor.Spec{OTP: true}}},
		plans:  make(map[string][]string), count: make(map[string]int),
		parts: make(map[string]*player), sups: make(map[string]supervisorPart),
		more: make(chan struct{}),
	}
}

func (th *theatre) note(format string, a ...any) {
	th.mu.Lock()
	th.ev = append(th.ev, fmt.Sprintf(format, a...))
	th.mu.Unlock()
	th.look()
}

// look has await look again.
func (th *theatre) look() {
	th.mu.Lock()
	defer th.mu.Unlock()
	close(th.more)
	th.more = make(chan struct{})
}

// planned takes the next outcome of a start.
func (th *theatre) planned(path string) string {
	th.mu.Lock()
	defer th.mu.Unlock()
	p := th.plans[path]
	if len(p) == 0 {
		return "ok"
	}
	th.plans[path] = p[1:]
	return p[0]
}

// up counts an incarnation and returns its name.
func (th *theatre) up(path string) string {
	th.mu.Lock()
	defer th.mu.Unlock()
	th.count[path]++
	return fmt.Sprintf("%s#%d", path, th.count[path])
}

// starter starts the actor of a part.
func (th *theatre) starter(d *part) supervisor.Starter {
	return supervisor.StarterFunc(func(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
		name := ""
		p := &player{th: th, part: d, hang: make(chan struct{}), done: make(chan struct{}), pid: actor.NewPID("0", d.path)}
		outcome := th.planned(d.path)
		if outcome == "ignore" {
			th.note("ignored %s", d.path)
			return nil, supervisor.ErrIgnore
		}
		inst, err := actors.Child(th.s, d.path, all(func(ctx actor.Context) {
			switch m := ctx.Message().(type) {
			case *actor.Started:
				switch outcome {
				case "error":
					actors.Exit(errors.New("planned"))
				case "raise":
					panic("planned")
				}
				name = th.up(d.path)
				th.note("start %s", name)
			case *actor.Stopping:
				how := th.onStop(d)
				switch {
				case !p.asked.Load() || how == "":
				case how == "ignore":
					<-p.hang
				default:
					actors.Exit(because(how))
				}
			case string:
				if m == "crash" {
					panic("crash")
				}
				actors.Exit(because(m))
			}
		})).Start(ctx, inc)
		if err != nil {
			th.note("startfail %s", d.path)
			return nil, err
		}
		p.Instance = inst
		th.mu.Lock()
		th.parts[d.path] = p
		th.mu.Unlock()
		go func() { // ends with the actor
			<-inst.Done()
			if leaked := inst.Leaked(); leaked != nil {
				<-leaked
			}
			th.note("stop %s %s", name, word(inst.Reason()))
			close(p.done)
		}()
		return p, nil
	})
}

// onStop says what a part does when it is asked to stop.
func (th *theatre) onStop(d *part) string {
	th.mu.Lock()
	defer th.mu.Unlock()
	return d.onstop
}

// supStarter starts the supervisor of a part.
func (th *theatre) supStarter(d *part) supervisor.Starter {
	return supervisor.StarterFunc(func(ctx context.Context, inc supervisor.Incarnation) (supervisor.Instance, error) {
		inst, err := th.tree(d).Start(ctx, inc)
		if err != nil {
			th.note("startfail %s", d.path)
			return nil, err
		}
		p := supervisorPart{inst.(*supervisor.Supervisor), make(chan struct{})}
		name := th.up(d.path)
		th.mu.Lock()
		th.sups[d.path] = p
		th.mu.Unlock()
		th.note("start %s", name)
		go func() { // ends with the supervisor
			<-inst.Done()
			th.note("stop %s %s", name, word(inst.Reason()))
			close(p.done)
		}()
		return p, nil
	})
}

// tree is the spec of a supervisor, with its children.
func (th *theatre) tree(d *part) supervisor.Spec {
	spec := *d.sub
	for _, k := range d.kids {
		spec.Children = append(spec.Children, th.params[k].spec)
	}
	return spec
}

// because is the error with which an actor leaves for a reason.
func because(word string) error {
	switch detail, ok := strings.CutPrefix(word, "shutdown:"); {
	case word == "normal":
		return nil
	case word == "shutdown":
		return supervisor.Exit(supervisor.Reason{Kind: supervisor.Shutdown})
	case ok:
		return supervisor.Exit(supervisor.Reason{Kind: supervisor.ShutdownDetail, Detail: detail})
	}
	return errors.New(word)
}

// word is a reason as the recordings have it.
func word(r supervisor.Reason) string {
	switch r.Kind {
	case supervisor.Normal:
		return "normal"
	case supervisor.Shutdown:
		return "shutdown"
	case supervisor.ShutdownDetail:
		return "shutdown:" + r.Detail
	case supervisor.Killed:
		return "killed"
	case supervisor.Panic:
		return fmt.Sprint(r.Value)
	case supervisor.Error:
		return r.Cause.Error()
	case supervisor.GaveUp, supervisor.Exited, supervisor.Signaled:
	}
	return r.String()
}

// declare carries out a declaration, if it is one.
func (th *theatre) declare(a []string) bool {
	switch a[0] {
	case "strategy":
		*th.params[""].sub = flags(a[1:])
	case "child":
		th.place(th.child(a[1], a[2:]))
	case "sup":
		d := &part{path: a[1], sub: new(supervisor.Spec)}
		*d.sub = flags(a[2:6])
		d.spec = childSpec(a[1], append([]string{a[6], a[7], "supervisor"}, a[8:]...))
		d.spec.Start = th.supStarter(d)
		th.place(d)
	case "plan":
		th.mu.Lock()
		th.plans[a[1]] = slices.Clone(a[2:])
		th.mu.Unlock()
	case "onstop":
		th.mu.Lock()
		th.params[a[1]].onstop = a[2]
		th.mu.Unlock()
	default:
		return false
	}
	return true
}

func (th *theatre) place(d *part) {
	th.params[d.path] = d
	up := th.params[above(d.path)]
	up.kids = append(up.kids, d.path)
}

func (th *theatre) child(path string, a []string) *part {
	d := &part{path: path, spec: childSpec(path, a)}
	for _, opt := range a[3:] {
		if v, ok := strings.CutPrefix(opt, "onstop="); ok {
			d.onstop = v
		}
	}
	d.spec.Start = th.starter(d)
	return d
}

func above(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

func flags(a []string) supervisor.Spec {
	number := func(s string) int { n, _ := strconv.Atoi(s); return n }
	s := supervisor.Spec{OTP: true, Intensity: supervisor.Intensity{Max: number(a[1]), Period: time.Duration(number(a[2])) * time.Second}}
	s.Strategy = supervisor.Strategy(slices.Index([]string{"one_for_one", "one_for_all", "rest_for_one"}, a[0]))
	if len(a) > 3 {
		s.AutoShutdown = supervisor.AutoShutdown(slices.Index([]string{"never", "any_significant", "all_significant"}, a[3]))
	}
	return s
}

func childSpec(path string, a []string) supervisor.ChildSpec {
	c := supervisor.ChildSpec{ID: path[strings.LastIndexByte(path, '/')+1:], Significant: slices.Contains(a, "significant")}
	c.Restart = supervisor.Restart(slices.Index([]string{"permanent", "transient", "temporary"}, a[0]))
	switch ms, _ := strconv.Atoi(a[1]); {
	case a[1] == "infinity":
		c.Shutdown = supervisor.Infinity
	case a[1] == "brutal_kill":
		c.Shutdown = supervisor.BrutalKill
	case ms == 0:
		c.Shutdown = supervisor.Immediately
	default:
		c.Shutdown = time.Duration(ms) * time.Millisecond
	}
	if a[2] == "supervisor" {
		c.Type = supervisor.TypeSupervisor
	}
	return c
}

// play plays a recording.
func (th *theatre) play(rec recording) {
	step := 0
	for _, line := range rec.Script {
		a := strings.Fields(line)
		if th.declare(a) {
			continue
		}
		want := rec.Expect[step]
		step++
		th.mu.Lock()
		th.ev = nil
		th.mu.Unlock()
		reply := th.do(a)
		// Where an error has a text of OTP's own, that it is one is enough.
		if w := want.R; strings.HasPrefix(w, "error ") && strings.Contains(w, "planned") {
			want.R, reply = "error", reply[:min(len(reply), len("error"))]
		}
		if reply != want.R {
			th.t.Fatalf("step %d, %s: the answer is %q, want %q", step, line, reply, want.R)
		}
		th.await(step, line, want)
	}
	if th.root != nil {
		th.root.Stop()
		<-th.root.Done()
	}
}

// await waits until what a step led to is as it should be.
func (th *theatre) await(step int, line string, want recordedStep) {
	ctx := testContext(th.t)
	for {
		th.mu.Lock()
		more, ev := th.more, slices.Clone(th.ev)
		th.mu.Unlock()
		sup, ch := th.state()
		if slices.Equal(ev, want.Ev) && sup == want.Sup && ch == want.Ch {
			return
		}
		select {
		case <-more:
		case <-ctx.Done():
			th.t.Fatalf("step %d, %s:\n got %s: %s %q\nwant %s: %s %q", step, line, sup, ch, ev, want.Sup, want.Ch, want.Ev)
		}
	}
}

// state shows the tree as the recordings do.
func (th *theatre) state() (sup, children string) {
	if th.root == nil {
		return "none", ""
	}
	select {
	case <-th.root.Done():
		return "down " + word(th.root.Reason()), ""
	default:
	}
	// It comes after what is on its way to the supervisor: an event is told before the
	// snapshot has it.
	_ = th.root.DeleteChild(context.Background(), "nobody")
	return "up", th.render(th.root.Snapshot().Children)
}

func (th *theatre) render(nodes []supervisor.Node) string {
	var out []string
	for _, n := range nodes {
		_, path, _ := strings.Cut(n.Path, "/")
		th.mu.Lock()
		name := fmt.Sprintf("%s#%d", path, th.count[path])
		th.mu.Unlock()
		switch {
		case n.Status == supervisor.Restarting || n.Status == supervisor.Starting:
			name = n.ID + "~"
		case n.Status == supervisor.Down:
			name = n.ID + "-"
		case n.Type == supervisor.TypeSupervisor && th.params[path].sub != nil:
			name += "[" + th.render(n.Children) + "]"
		}
		out = append(out, name)
	}
	return strings.Join(out, " ")
}

// do carries out one operation and returns the answer.
func (th *theatre) do(a []string) string {
	ctx := testContext(th.t)
	up := false
	if th.root != nil {
		select {
		case <-th.root.Done():
		default:
			up = true
		}
	}
	switch {
	case a[0] == "start" && up:
		return "already_up"
	case a[0] == "start":
		root, err := supervisor.Start(ctx, th.tree(th.params[""]), supervisor.Config{Clock: th.clock, Logger: th.s.Logger()})
		if err != nil {
			return answer("", err)
		}
		th.root = root
		events := root.Subscribe(1)
		go func() { // ends with the tree
			for range events.Events(context.Background()) {
				th.look()
			}
			<-root.Done()
			th.look()
		}()
		return "ok"
	case !up:
		return "noproc"
	}
	switch a[0] {
	case "stop":
		th.root.Stop()
		return "ok"
	case "which", "count":
		return "ok"
	case "advance":
		ms, _ := strconv.Atoi(a[1])
		th.clock.advance(time.Duration(ms) * time.Millisecond)
		return "ok"
	case "crash":
		return th.end(a[1], "crash")
	case "exit":
		return th.end(a[1], a[2])
	case "kill":
		return th.end(a[1], "kill")
	}
	path := a[1]
	sup := th.root
	if p := above(path); p != "" {
		th.mu.Lock()
		s, ok := th.sups[p]
		th.mu.Unlock()
		if !ok {
			return "noproc"
		}
		sup = s.Supervisor
	}
	id := path[len(above(path)):]
	id = strings.TrimPrefix(id, "/")
	switch a[0] {
	case "terminate":
		return answer("", sup.TerminateChild(ctx, id))
	case "delete":
		return answer("", sup.DeleteChild(ctx, id))
	case "restart":
		c, err := sup.RestartChild(ctx, id)
		return th.started(path, c, err)
	case "start_child":
		d := th.child(path, a[2:])
		th.mu.Lock()
		old := th.params[path]
		th.mu.Unlock()
		c, err := sup.StartChild(ctx, d.spec)
		if old == nil {
			th.params[path] = d
		}
		return th.started(path, c, err)
	}
	th.t.Fatalf("no operation %q", a[0])
	return ""
}

// end makes the latest incarnation at path end.
func (th *theatre) end(path, reason string) string {
	th.mu.Lock()
	p, sup := th.parts[path], th.sups[path]
	th.mu.Unlock()
	var i supervisor.Instance = p
	if p == nil {
		if sup.Supervisor == nil {
			return "dead"
		}
		i = sup
	}
	select {
	case <-i.Done():
		return "dead"
	default:
	}
	switch {
	case reason == "kill":
		i.Kill()
	case p == nil:
		th.t.Fatalf("%s: a supervisor leaves for no reason of its own", path)
	default:
		if err := th.s.Send(testContext(th.t), p.pid, reason); err != nil {
			th.t.Fatal(err)
		}
	}
	return "ok"
}

// started is the answer of a call that started a child.
func (th *theatre) started(path string, c supervisor.Child, err error) string {
	th.mu.Lock()
	defer th.mu.Unlock()
	name := fmt.Sprintf("%s#%d", path, th.count[path])
	switch {
	case err == nil && c.Undefined:
		return "ok undefined"
	case err == nil:
		return "ok " + name
	}
	return answer(name, err)
}

// answer is what OTP answers where ours is err. name is the child's.
func answer(name string, err error) string {
	for _, row := range []struct {
		err  error
		word string
	}{
		{nil, "ok"},
		{supervisor.ErrNotFound, "error not_found"},
		{supervisor.ErrRunning, "error running"},
		{supervisor.ErrRestarting, "error restarting"},
		{supervisor.ErrAlreadyStarted, "error already_started " + name},
		{supervisor.ErrAlreadyPresent, "error already_present"},
		{supervisor.ErrStopped, "noproc"},
	} {
		if errors.Is(err, row.err) {
			return row.word
		}
	}
	return "error " + err.Error()
}
