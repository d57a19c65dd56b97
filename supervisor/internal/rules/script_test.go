package rules_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// stepResult is what one step of a script led to, in the words of the recordings.
type stepResult struct {
	Line string   `json:"-"`
	R    string   `json:"r"`             // the reply
	Sup  string   `json:"sup"`           // up, "down REASON", none
	Ch   string   `json:"ch"`            // the children, in start order
	Cnt  []int    `json:"cnt,omitempty"` // specs, active, supervisors, workers
	Ev   []string `json:"ev,omitempty"`  // starts and stops, in order
	Rep  []string `json:"rep,omitempty"` // what OTP logs at error level, in order
}

// String shows the step on a few lines: the command and its reply, then what
// happened, then the state.
func (s stepResult) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s -> %s\n", s.Line, s.R)
	for _, e := range s.Ev {
		fmt.Fprintf(&b, "    %s\n", e)
	}
	for _, r := range s.Rep {
		fmt.Fprintf(&b, "    ! %s\n", r)
	}
	fmt.Fprintf(&b, "  %s", s.Sup)
	if s.Ch != "" {
		fmt.Fprintf(&b, ": %s", s.Ch)
	}
	b.WriteByte('\n')
	return b.String()
}

// stage is a tree of supervisors with fake children and a fake clock, on which
// scripts are played. It is used by one goroutine. A script first declares its tree and
// then has the commands below; P is a path such as web or media/encoder.
//
//	strategy S MAX PERIOD AUTO                   the root; S is OTP's name
//	child P RESTART SHUTDOWN TYPE [significant]  a child
//	sup P S MAX PERIOD AUTO RESTART SHUTDOWN     a supervisor below
//	start; stop [REASON]; supkill                start the tree; the parent's order to stop; kill the root
//	crash P; exit P REASON; kill P               end a child; REASON is normal, shutdown, shutdown:x, or another word
//	terminate P; restart P; delete P; get P      the calls on a supervisor
//	start_child P RESTART SHUTDOWN TYPE          add a child: start_child cache transient 5000 worker
//	spawn LABEL                                  add a child to a dynamic root
//	burst X ; Y                                  two children end before the supervisor looks at either
//	race crash P => OP                           OP arrives while a restart of P fails
//	advance MS; which; count; stray
//	plan P OUTCOME...                            the next starts of P: ok, extra, error, raise, badreturn, ignore
//	onstop P ignore|REASON                       what P does when asked to stop
type stage struct {
	sim  *simulation
	root *supervisorDecl
}

// newStage returns a stage whose tree the script declares itself. Supervisors
// follow OTP to the letter.
func newStage() *stage {
	flags, _ := parseFlags(nil)
	root := &supervisorDecl{flags: flags}
	return &stage{root: root, sim: newSimulation(root)}
}

// play plays a script: one command a line, empty lines and lines that begin
// with # left out. It returns what each step led to; declarations are no steps.
func (g *stage) play(script string) ([]stepResult, error) {
	var steps []stepResult
	for n, line := range strings.Split(script, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		step, isStep, err := g.do(line)
		if err != nil {
			return steps, fmt.Errorf("line %d: %w", n+1, err)
		}
		if isStep {
			steps = append(steps, step)
		}
	}
	return steps, nil
}

// do carries out one command. It reports false for a declaration.
func (g *stage) do(line string) (step stepResult, isStep bool, err error) {
	a := strings.Fields(line)
	if len(a) == 0 {
		return stepResult{}, false, fmt.Errorf("empty command")
	}
	if done, err := g.declare(a); done || err != nil {
		return stepResult{}, false, err
	}
	if err := g.arity(a); err != nil {
		return stepResult{}, false, err
	}
	w := g.sim
	w.ev, w.rep = nil, nil
	step.Line = line
	step.R = g.op(a)
	w.settle()
	sorted := g.root.flags.Strategy == rules.Dynamic || a[0] == "supkill" && w.rootUp == nil && w.rootDone != ""
	if step.Ev, step.Rep = w.ev, w.rep; sorted {
		sortRuns(step.Ev, "stop ")
		sortRuns(step.Rep, "shutdown_error ")
	}
	switch {
	case w.rootUp != nil:
		step.Sup, step.Ch, step.Cnt = "up", w.rootUp.render(true), w.rootUp.counts()
	case w.rootDone == "":
		step.Sup = "none"
	default:
		step.Sup = "down " + w.rootDone
	}
	return step, true, nil
}

// sortRuns sorts each run of lines with this prefix: what stops together has no order.
func sortRuns(lines []string, prefix string) {
	for i := 0; i < len(lines); i++ {
		j := i
		for j < len(lines) && strings.HasPrefix(lines[j], prefix) {
			j++
		}
		slices.Sort(lines[i:j])
		i = max(i, j-1)
	}
}

// declare carries out a declaration, if it is one.
func (g *stage) declare(a []string) (bool, error) {
	switch a[0] {
	case "strategy":
		g.root.flags, g.root.bad = parseFlags(a[1:])
	case "plan":
		if len(a) < 2 {
			return true, fmt.Errorf("plan: want PATH OUTCOME...")
		}
		g.sim.plans[a[1]] = slices.Clone(a[2:])
	case "onstop":
		if len(a) != 3 {
			return true, fmt.Errorf("onstop: want PATH ignore|REASON")
		}
		g.sim.onstop[a[1]] = a[2]
	case "child":
		if len(a) < 2 {
			return true, fmt.Errorf("child: want PATH RESTART SHUTDOWN TYPE")
		}
		d, err := parseChild(a[1], a[2:])
		if err != nil {
			return true, err
		}
		return true, g.place(d)
	case "sup":
		if len(a) < 8 {
			return true, fmt.Errorf("sup: want PATH S INTENSITY PERIOD AUTO RESTART SHUTDOWN")
		}
		opts := append([]string{a[6], a[7], "supervisor"}, a[8:]...)
		d, err := parseChild(a[1], opts)
		if err != nil {
			return true, err
		}
		d.sup = &supervisorDecl{}
		d.sup.flags, d.sup.bad = parseFlags(a[2:6])
		return true, g.place(d)
	default:
		return false, nil
	}
	return true, nil
}

// place adds a declaration under its parent.
func (g *stage) place(d *decl) error {
	up := g.root
	if p := parent(d.path); p != "" {
		if up = find(g.root, p); up == nil {
			return fmt.Errorf("%s: no supervisor %s is declared", d.path, p)
		}
	}
	up.children = append(up.children, d)
	return nil
}

func find(s *supervisorDecl, path string) *supervisorDecl {
	for _, k := range s.children {
		if k.sup == nil {
			continue
		}
		if k.path == path {
			return k.sup
		}
		if strings.HasPrefix(path, k.path+"/") {
			if f := find(k.sup, path); f != nil {
				return f
			}
		}
	}
	return nil
}

// arity checks the number of arguments of a step.
func (g *stage) arity(a []string) error {
	atLeast := map[string]int{
		"start": 0, "stop": 0, "crash": 1, "exit": 2, "kill": 1, "terminate": 1, "restart": 1,
		"delete": 1, "get": 1, "start_child": 4, "which": 0, "count": 0, "spawn": 1, "burst": 2, "race": 4,
		"advance": 1, "stray": 0, "supkill": 0,
	}
	n, ok := atLeast[a[0]]
	if !ok {
		return fmt.Errorf("unknown command %q", a[0])
	}
	if len(a)-1 < n {
		return fmt.Errorf("%s: want at least %d arguments", a[0], n)
	}
	if a[0] == "race" {
		i := slices.Index(a, "=>")
		if a[1] != "crash" || i != 3 || len(a) < 5 {
			return fmt.Errorf("race: want crash PATH => OPERATION")
		}
		return g.arity(a[4:])
	}
	return nil
}

// op carries out one operation and returns the reply.
func (g *stage) op(a []string) string {
	w := g.sim
	if a[0] == "start" {
		return g.start()
	}
	if w.rootUp == nil {
		return "noproc"
	}
	switch a[0] {
	case "crash":
		return w.exit(a[1], "crash")
	case "exit":
		return w.exit(a[1], a[2])
	case "kill":
		return w.exit(a[1], "kill")
	case "burst":
		return g.burst(a[1:])
	case "race":
		return g.race(a[2], a[4:])
	case "stop":
		return g.stop(a[1:])
	case "supkill":
		return g.supkill()
	case "which", "count":
		return "ok"
	case "advance":
		ms, err := strconv.Atoi(a[1])
		if err != nil {
			return "error " + err.Error()
		}
		w.settle()
		w.advance(time.Duration(ms) * time.Millisecond)
		return "ok"
	case "stray":
		w.rootUp.step(rules.Event{Kind: rules.Exited, Key: 1 << 60, Run: 1, End: rules.Shutdown})
		w.rep = append(w.rep, "unexpected_message")
		return "ok"
	default:
		return g.call(a)
	}
}

func (g *stage) start() string {
	w := g.sim
	if w.rootUp != nil {
		return "already_up"
	}
	s, bad := w.newSup("", g.root, nil)
	if bad != "" {
		w.queue, w.timers = nil, nil
		return "error " + bad
	}
	w.rootUp, w.rootDone = s, ""
	return "ok"
}

func (g *stage) stop(a []string) string {
	reason := "shutdown"
	if len(a) > 0 {
		reason = a[0]
	}
	if reason == "kill" {
		return g.supkill()
	}
	s := g.sim.rootUp
	s.reason = reason
	s.step(rules.Event{Kind: rules.Stop})
	return "ok"
}

func (g *stage) supkill() string {
	s := g.sim.rootUp
	s.orphan()
	g.sim.rootUp, g.sim.rootDone = nil, "killed"
	return "ok"
}

// exit makes the latest instance at path end.
func (w *simulation) exit(path, reason string) string {
	p := w.current[path]
	if p == nil || !p.alive {
		return "dead"
	}
	if reason == "kill" {
		p.kill()
	} else {
		p.die(reason)
	}
	return "ok"
}

// supOf returns the running supervisor that path's child belongs to.
func (w *simulation) supOf(path string) *fakeSupervisor {
	up := parent(path)
	if up == "" {
		return w.rootUp
	}
	if p := w.current[up]; p != nil && p.alive && p.sup != nil {
		return p.sup
	}
	return nil
}

// burst makes several children end before their supervisor looks at any.
func (g *stage) burst(a []string) string {
	w := g.sim
	s := w.supOf(a[1])
	if s == nil {
		return "noproc"
	}
	w.held = s
	var rs []string
	for _, one := range strings.Split(strings.Join(a, " "), ";") {
		f := strings.Fields(one)
		if len(f) >= 2 {
			rs = append(rs, g.op(f))
			w.pump()
		}
	}
	w.held = nil
	return strings.Join(rs, ",")
}

// race holds the next restart attempt of path, sends an operation to its
// supervisor, and lets the attempt fail.
func (g *stage) race(path string, a []string) string {
	w := g.sim
	s, p := w.supOf(path), w.current[path]
	if s == nil || p == nil || !p.alive {
		return "noproc"
	}
	w.gate = &gate{path: path, by: s}
	w.exit(path, "crash")
	w.settle()
	e := w.gate.hit
	if e == nil {
		w.gate = nil
		return "nogate " + g.op(a)
	}
	early := w.early && a[0] != "which" && a[0] != "count" && a[0] != "get"
	if !(s.d.flags.Strategy == rules.OneForAll || s.d.flags.Strategy == rules.RestForOne) && (len(a) < 2 || a[1] != path) {
		early = false // with these strategies other children do not wait
	}
	fail := func() {
		w.note("startfail %s", path)
		s.children[e.Key].why = "planned"
		w.gate = nil
		s.step(rules.Event{Kind: rules.StartFailed, Key: e.Key, Run: e.Run})
	}
	if early {
		r := g.op(a)
		fail()
		if late := w.replies[w.calls]; late != "" {
			r = late
		}
		return r
	}
	fail()
	switch a[0] {
	case "which":
		return s.render(false)
	case "count":
		return strings.Trim(fmt.Sprint(s.counts()), "[]")
	}
	return g.op(a)
}

// call carries out a call on a supervisor and returns its reply.
func (g *stage) call(a []string) string {
	w := g.sim
	if a[0] == "spawn" {
		return g.spawn(w.rootUp, a[1])
	}
	s := w.supOf(a[1])
	if s == nil {
		return "noproc"
	}
	if a[0] == "start_child" {
		d, err := parseChild(a[1], a[2:])
		if err != nil {
			return "error " + err.Error()
		}
		return s.startChild(d)
	}
	dynamic := s.d.flags.Strategy == rules.Dynamic
	if a[0] == "get" {
		return s.get(a[1])
	}
	c := rules.Call{ID: leaf(a[1])}
	if dynamic {
		if p := w.current[a[1]]; p != nil {
			if p.by != s { // of a former supervisor: dead, and so ok
				c.Key = s.state.LastKey
				if a[0] == "terminate" {
					return "ok"
				}
			}
			c.Key = p.key
		}
	}
	switch a[0] {
	case "terminate":
		c.Op = rules.TerminateChild
	case "restart":
		c.Op = rules.RestartChild
	case "delete":
		c.Op = rules.DeleteChild
	}
	return w.answered(s.request(c, nil))
}

// answered returns the reply to a call, letting time pass until it is there.
func (w *simulation) answered(call uint64) string {
	for w.replies[call] == "" && (w.gate == nil || w.gate.hit == nil) {
		w.wait()
	}
	return w.replies[call]
}

func (s *fakeSupervisor) startChild(d *decl) string {
	if s.d.flags.Strategy == rules.Dynamic {
		return "error simple_one_for_one"
	}
	if bad := d.check(s.d.flags.AutoShutdown); bad != "" {
		return "error " + bad
	}
	d.added = true
	return s.w.answered(s.request(rules.Call{Op: rules.StartChild, ID: d.params.ID, Params: d.params}, d))
}

func (g *stage) spawn(s *fakeSupervisor, label string) string {
	if s.d.flags.Strategy != rules.Dynamic {
		return fmt.Sprintf("error invalid_child_spec [%s]", strings.ReplaceAll(fmt.Sprint([]byte(label)), " ", ","))
	}
	d := *s.d.children[0]
	d.path = label
	return s.w.answered(s.request(rules.Call{Op: rules.StartChild, Params: d.params}, &d))
}

// get renders a child's spec. A dynamic supervisor knows its template by id and
// its children by what they are, the dead ones included.
func (s *fakeSupervisor) get(path string) string {
	if s.d.flags.Strategy == rules.Dynamic {
		t := s.d.children[0]
		if s.w.current[path] != nil || leaf(path) == t.params.ID {
			return t.spec()
		}
		return "error not_found"
	}
	if key, ok := s.state.IDs[leaf(path)]; ok {
		return s.children[key].d.spec()
	}
	return "error not_found"
}
