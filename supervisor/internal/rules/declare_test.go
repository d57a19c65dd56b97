package rules_test

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

// decl is a declared place in the tree: a child, and if sup is set a supervisor.
type decl struct {
	path   string
	params rules.Params
	sup    *supervisorDecl
	onstop string // what a worker does when asked to stop: "" shutdown, ignore, or a reason
	added  bool   // by start_child
	bad    string // OTP's error for the spec, if there is one
}

// supDecl is a supervisor's part of a declaration.
type supervisorDecl struct {
	flags    rules.Flags
	bad      string
	children []*decl
}

func leaf(path string) string   { return path[strings.LastIndexByte(path, '/')+1:] }
func parent(path string) string { return path[:max(strings.LastIndexByte(path, '/'), 0)] }

var (
	strategies = []string{"one_for_one", "one_for_all", "rest_for_one", "simple_one_for_one"}
	restarts   = []string{"permanent", "transient", "temporary"}
	autos      = []string{"never", "any_significant", "all_significant"}
)

// lookup finds a word, or says what OTP would say of it.
func lookup(words []string, word, what string) (uint8, string) {
	for i, w := range words {
		if w == word {
			return uint8(i), ""
		}
	}
	return 0, what + " " + word
}

// parseFlags reads "S INTENSITY PERIOD AUTO". The first fault is the error, in
// the order in which OTP looks.
func parseFlags(a []string) (f rules.Flags, bad string) {
	for len(a) < 4 {
		a = append(a, []string{"one_for_one", "1", "5", "never"}[len(a)])
	}
	s, bad := lookup(strategies, a[0], "invalid_strategy")
	f.Strategy = rules.Strategy(s)
	n, err := strconv.Atoi(a[1])
	if bad == "" && (err != nil || n < 0) {
		bad = "invalid_intensity " + a[1]
	}
	f.Max = n
	p, err := strconv.Atoi(a[2])
	if bad == "" && (err != nil || p <= 0) {
		bad = "invalid_period " + a[2]
	}
	f.Period = time.Duration(p) * time.Second
	auto, badAuto := lookup(autos, a[3], "invalid_auto_shutdown")
	if bad == "" {
		bad = badAuto
	}
	f.AutoShutdown = rules.AutoShutdown(auto)
	if bad != "" {
		bad = "supervisor_data " + bad
	}
	return f, bad
}

// parseChild reads "RESTART SHUTDOWN TYPE [significant] [onstop=…]". The
// faults that depend on the supervisor are found by check.
func parseChild(path string, a []string) (*decl, error) {
	if len(a) < 3 {
		return nil, fmt.Errorf("child %s: want RESTART SHUTDOWN TYPE", path)
	}
	d := &decl{path: path}
	d.params.ID = leaf(path)
	r, badRestart := lookup(restarts, a[0], "invalid_restart_type")
	d.params.Restart = rules.Restart(r)
	badType := ""
	switch a[2] {
	case "worker":
	case "supervisor":
		d.params.Supervisor = true
	default:
		badType = "invalid_child_type " + a[2]
	}
	badShutdown := ""
	switch a[1] {
	case "infinity":
		d.params.Shutdown = rules.Infinity
	case "brutal_kill":
		d.params.Shutdown = rules.BrutalKill
	default:
		ms, err := strconv.Atoi(a[1])
		if err != nil || ms < 0 {
			badShutdown = "invalid_shutdown " + a[1]
		}
		d.params.Shutdown = time.Duration(ms) * time.Millisecond
	}
	for _, opt := range a[3:] {
		if opt == "significant" {
			d.params.Significant = true
		} else if v, ok := strings.CutPrefix(opt, "onstop="); ok && d.onstop == "" {
			d.onstop = v
		}
	}
	// OTP looks at the restart type first, at the type and the shutdown last.
	d.bad = badRestart
	if d.bad == "" && !d.params.Significant {
		d.bad = badType
		if d.bad == "" {
			d.bad = badShutdown
		}
	}
	return d, nil
}

// check returns OTP's error for the child under a supervisor with this
// auto-shutdown, or "".
func (d *decl) check(auto rules.AutoShutdown) string {
	switch {
	case d.bad != "":
		return d.bad
	case d.params.Significant && auto == rules.Never:
		return "bad_combination auto_shutdown=never significant=true"
	case d.params.Significant && d.params.Restart == rules.Permanent:
		return "bad_combination restart=permanent significant=true"
	}
	return ""
}

// check returns OTP's error for a supervisor's flags and children, or "".
func (s *supervisorDecl) check() string {
	if s.bad != "" {
		return s.bad
	}
	if s.flags.Strategy == rules.Dynamic && len(s.children) != 1 {
		return "bad_start_spec"
	}
	seen := map[string]bool{}
	for _, k := range s.children {
		if bad := k.check(s.flags.AutoShutdown); bad != "" {
			return "start_spec " + bad
		}
		if seen[k.params.ID] {
			return "start_spec duplicate_child_name " + k.params.ID
		}
		seen[k.params.ID] = true
	}
	return ""
}

// spec renders a child spec as the recordings do.
func (d *decl) spec() string {
	p := d.params
	shutdown := strconv.FormatInt(p.Shutdown.Milliseconds(), 10)
	switch p.Shutdown {
	case rules.Infinity:
		shutdown = "infinity"
	case rules.BrutalKill:
		shutdown = "brutal_kill"
	default: // any other duration
	}
	kind := "worker"
	if p.Supervisor {
		kind = "supervisor"
	}
	s := fmt.Sprintf("spec %s %s %s %s", p.ID, restarts[p.Restart], shutdown, kind)
	if p.Significant {
		s += " significant"
	}
	if d.added && p.Restart == rules.Temporary {
		s += " args=dropped" // OTP forgets the start arguments of such a child
	}
	return s
}
