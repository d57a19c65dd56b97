//go:build linux

package coppice_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// declaredVar is the variable with the path of the file that the main of the trees below reads.
const declaredVar = "COPPICE_TEST_DECLARED"

// declared is what that file has: what main makes of the tree.
type declared struct {
	Version string
	Size    int
	Timeout time.Duration
	Every   time.Duration
	Env     []string
	Drain   time.Duration
	Recycle int64
	Backlog int
	Spares  int
	Cron    bool // a Func
	Tick    bool // a further Func
	Web     string
	Hang    bool // the pool first is not ready
	Orphans time.Duration
}

// write puts d at path at once, as an editor does.
func (d declared) write(t *testing.T, path string) {
	t.Helper()
	b, err := json.Marshal(d)
	if err == nil {
		err = os.WriteFile(path+".new", b, 0o600)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// readDeclared is the beginning of a main that needs its file.
func readDeclared(path string) (d declared) {
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &d)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "no tree without its file:", err)
		os.Exit(3)
	}
	return d
}

func (d declared) config() coppice.Config {
	worker := func(ctx context.Context, w *coppice.Worker) error {
		ln, err := w.Listener(ctx, "front")
		if err != nil {
			return err
		}
		return w.Serve(ctx, ln, &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
			<-time.After(5 * time.Millisecond) // work that leaves the CPUs to the deployment
			fmt.Fprintf(rw, "%s of %s, pid %d", w.Name(), d.Version, os.Getpid())
		})})
	}
	beat := func(ctx context.Context) error { <-ctx.Done(); return nil }
	web := coppice.Pool{
		Name: "web", Size: d.Size, Worker: worker, StartTimeout: runtimetest.Patience, Shutdown: d.Drain, Spares: d.Spares,
		Liveness: coppice.Liveness{Every: d.Every, Timeout: d.Timeout}, Recycle: coppice.Recycle{Requests: d.Recycle},
		Environment: coppice.Environment{Env: d.Env},
		Intensity:   supervisor.Intensity{Max: 2, Period: time.Minute},
	}
	cfg := coppice.Config{OrphanDrain: d.Orphans, Children: []coppice.ChildSpec{
		coppice.ListenerSpec{Name: "front", Network: "tcp", Address: "127.0.0.1:0", Backlog: d.Backlog},
	}}
	switch d.Web {
	case "":
		cfg.Children = append(cfg.Children, web)
	case "func":
		cfg.Children = append(cfg.Children, coppice.Func{Name: "web", Run: beat})
	default:
		web.Name = d.Web
		cfg.Children = append(cfg.Children, web)
	}
	if d.Cron {
		cfg.Children = append(cfg.Children, coppice.Func{Name: "cron", Run: beat})
	}
	if d.Tick {
		cfg.Children = append(cfg.Children, coppice.Func{Name: "tick", Run: beat})
	}
	return cfg
}

func init() {
	trees["declared"] = func() coppice.Config { return readDeclared(os.Getenv(declaredVar)).config() }
	trees["declared, after another pool"] = func() coppice.Config {
		d := readDeclared(os.Getenv(declaredVar))
		cfg, worker := d.config(), idle
		if d.Hang {
			worker = func(ctx context.Context, _ *coppice.Worker) error { <-ctx.Done(); return nil }
		}
		cfg.Children = append([]coppice.ChildSpec{coppice.Pool{Name: "first", Size: 1, Worker: worker}}, cfg.Children...)
		return cfg
	}
	trees["declared, gives up at once"] = func() coppice.Config {
		cfg := readDeclared(os.Getenv(declaredVar)).config()
		web := cfg.Children[1].(coppice.Pool)
		web.Intensity = supervisor.Intensity{Period: time.Second} // no restart
		cfg.Children[1], cfg.Intensity = web, supervisor.Intensity{Max: 1000, Period: time.Minute}
		return cfg
	}
	trees["declared by release"] = func() coppice.Config {
		self, err := os.Executable()
		if err != nil {
			panic(err)
		}
		cfg := readDeclared(filepath.Join(filepath.Dir(self), "tree.json")).config()
		cfg.Hooks.Started = func(rt *coppice.Runtime) { fmt.Println("up at", rt.Listeners()[0].Addr) }
		return cfg
	}
	// What the usual program computes: a size by the CPUs, a name of the host, the time.
	trees["computed"] = func() coppice.Config {
		host, _ := os.Hostname()
		p := coppice.Pool{
			Name: "web", Size: goruntime.GOMAXPROCS(0), Worker: idle, StartTimeout: runtimetest.Patience,
			Environment: coppice.Environment{MaxProcs: 7, Env: []string{"HOST=" + host, "SINCE=" + time.Now().String()}},
		}
		p.Liveness.Timeout = time.Minute + time.Duration(os.Getpid())
		return coppice.Config{Children: []coppice.ChildSpec{p}}
	}
}

// plantDeclared starts a tree of d, and returns the file that d is in.
func plantDeclared(t *testing.T, name string, d declared) (*runningTree, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tree.json")
	t.Setenv(declaredVar, path)
	d.write(t, path)
	return startTree(t, name), path
}

// wantSize checks how many workers the pool web has.
func (p *runningTree) wantSize(n int) {
	p.t.Helper()
	got := 0
	for name := range p.slots() {
		if strings.HasPrefix(name, "web/") {
			got++
		}
	}
	if got != n {
		p.t.Errorf("web has %d workers, want %d", got, n)
	}
}

// wantLog waits until the log, which is written apart, has each text that often, and not more.
func (p *runningTree) wantLog(want map[string]int) {
	p.t.Helper()
	for text, n := range want {
		runtimetest.Eventually(p.t, "the log has "+text, func() bool { return strings.Count(p.log.String(), text) >= n })
	}
	for text, n := range want {
		if got := strings.Count(p.log.String(), text); got != n {
			p.t.Errorf("the log has %q %d times, want %d", text, got, n)
		}
	}
}

// TestComputedTree: a tree with values that each process computes for itself runs by the master's:
// one line says which fields they are, replacements take their places, and for a reload they are no
// change.
func TestComputedTree(t *testing.T) {
	p := startTree(t, "computed")
	size := goruntime.GOMAXPROCS(0)
	p.wantSize(size)
	old := p.pid("web/0")
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "another worker has its place", func() bool { n := p.slots()["web/0"]; return n.PID != old && n.State == "running" })
	p.mustReload()
	p.mustReload()
	p.wantSize(size)
	p.wantLog(map[string]int{
		"a child declares other values":                      2, // the listener process, which has the master's CPUs, and a worker
		fmt.Sprintf("fields=\"web.Size 7 (here %d)\"", size): 1,
		"level=WARN":  0,
		"level=ERROR": 1, // the kill
	})
}

// TestReloadOtherValues: a reload takes over the size that a new program declares. The other values
// stay as they are, with one line for each; so do the children, unless the program lacks one that
// the tree needs: then the reload fails before a worker is replaced.
func TestReloadOtherValues(t *testing.T) {
	d := declared{Size: 2, Timeout: 20 * time.Second, Cron: true}
	p, path := plantDeclared(t, "declared, after another pool", d)
	d.Size, d.Timeout, d.Cron, d.Tick = 3, 30*time.Second, false, true
	d.write(t, path)
	p.mustReload()
	p.wantSize(3)
	p.mustReload() // the same again is no change
	p.wantLog(map[string]int{
		"reload: a pool has the size that the new program declares\" pool=web size=3 before=2":                           1,
		"reload: the new program declares web.Liveness.Timeout 30s; the tree keeps 20s until the program is restarted":   1,
		"reload: the new program does not declare cron (Func); the tree keeps it until the program is restarted":         1,
		"reload: the new program declares a further child, tick (Func); the tree does not start it until the program is": 1,
		"level=WARN":  3,
		"level=ERROR": 0,
	})

	if err := p.Scale(t.Context(), "web", 2); err != nil { // the operator's size stays
		t.Fatal(err)
	}
	d.Timeout = 20 * time.Second // and what the tree has is no news
	d.write(t, path)
	p.mustReload()
	p.wantLog(map[string]int{"level=WARN": 3})
	p.wantSize(2)
	before := p.slots()["first/0"].ID
	d.Hang = true // the reload fails before a worker serves
	for web, why := range map[string]string{
		"api":  "the new program has no pool web, which the tree has: a reload cannot change that: restart the program",
		"func": `web is a "Func" in the new program, and a "Pool" in the tree: a reload cannot change that: restart the program`,
	} {
		d.Web = web
		d.write(t, path)
		if failed := p.failReload(); !strings.Contains(failed.Error(), why) || strings.Contains(failed.Error(), "\n") {
			t.Errorf("web is %s: %v", web, failed)
		}
	}
	if now := p.slots()["first/0"].ID; now != before {
		t.Errorf("first/0 was replaced: %d, before %d", now, before)
	}
	d.Web, d.Size, d.Hang = "", 1, false
	d.write(t, path)
	p.mustReload()
	p.wantSize(1)
}

// TestReloadWithoutPool: the only pool is not in the new program, whose worker finds that itself.
func TestReloadWithoutPool(t *testing.T) {
	p, path := plantDeclared(t, "declared", declared{Size: 1})
	declared{Size: 1, Web: "api"}.write(t, path)
	failed := p.failReload()
	if !strings.Contains(failed.Error(), "this program has no pool web, which its master has: it has report (Actor), front (ListenerSpec), api (Pool).") ||
		strings.Contains(failed.Error(), "\n") {
		t.Error(failed)
	}
	p.wantGenerations(1, 1)
}

// TestStartOfMisfit: a worker without its pool, or whose main ends before Main, fails the start of
// the tree at once.
func TestStartOfMisfit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tree.json")
	t.Setenv(declaredVar, path)
	t.Setenv(treeVar, "declared")
	declared{Size: 1}.write(t, path)
	cfg := withReports(trees["declared"](), nil)
	for name, change := range map[string]func(){
		"has no pool web": func() { declared{Web: "api"}.write(t, path) },
		"no tree without its file": func() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
	} {
		declared{Size: 1}.write(t, path)
		change()
		out := &printed{to: testWriter{t}}
		cfg.Output = out
		rt, err := coppice.Start(t.Context(), cfg)
		if err == nil {
			_ = rt.Shutdown(t.Context())
			t.Fatalf("%s: it started", name)
		}
		if !strings.Contains(err.Error()+out.String(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMainReadsWhatChanged: what main reads has changed or is gone when a worker dies. A
// replacement that differs in a value takes its place. While one cannot, because main ends or has
// no such pool, the service stays up, no budget is spent, and the log has two lines.
func TestMainReadsWhatChanged(t *testing.T) {
	d := declared{Size: 2}
	p, path := plantDeclared(t, "declared", d)
	kill := func(name string) {
		t.Helper()
		if err := syscall.Kill(p.pid(name), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	back := func(name string, before int) {
		t.Helper()
		runtimetest.Eventually(t, name+" is back", func() bool { n := p.slots()[name]; return n.ID != before && n.State == "running" })
	}

	d.Size = 3
	d.write(t, path)
	before := p.slots()["web/0"].ID
	kill("web/0")
	back("web/0", before)
	p.wantLog(map[string]int{"a child declares other values of the tree than the master, whose values count\" name=web/0 fields=\"web.Size 3 (here 2)\"": 1})

	const began, over = "the program cannot be the worker that it was", "workers can start again"
	for round, change := range []func(){
		func() {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		},
		func() { declared{Size: 2, Web: "api"}.write(t, path) },
	} {
		change()
		before := p.slots()
		kill("web/0")
		p.get() // of web/1
		kill("web/1")
		kill("listener")
		tried := strings.Count(p.output.String(), "no tree without its file") + strings.Count(p.output.String(), "this program has no pool web")
		runtimetest.Eventually(t, "more starts than the budget has have failed", func() bool {
			n := strings.Count(p.output.String(), "no tree without its file") + strings.Count(p.output.String(), "this program has no pool web")
			return n > tried+4
		})
		p.wantLog(map[string]int{began: round + 1, over: round})
		d.write(t, path)
		back("web/0", before["web/0"].ID)
		back("web/1", before["web/1"].ID)
		p.get()
		runtimetest.Eventually(t, "the log says that this is over", func() bool { return strings.Count(p.log.String(), over) == round+1 })
	}
	p.mustReload()
	p.wantLog(map[string]int{"size=3 before=2": 1}) // what the first generation had at its start counts
}

// TestMisfitInReload: while no replacement can start, a reload to a program that can be the worker
// brings it.
func TestMisfitInReload(t *testing.T) {
	d := declared{Size: 1}
	p, path := plantDeclared(t, "declared", d)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.pid("web/0"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "a start has failed", func() bool { return strings.Contains(p.log.String(), "the program cannot be the worker that it was") })
	d.write(t, path)
	p.mustReload()
	p.get()
}

// TestReloadOfPoolOfMisfits: a pool has given up, and the program of its generation cannot be its
// worker any more when the pool is started again. A reload does not wait for that start.
func TestReloadOfPoolOfMisfits(t *testing.T) {
	d := declared{Size: 2}
	p, path := plantDeclared(t, "declared, gives up at once", d)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.pid("web/0"), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	runtimetest.Eventually(t, "a start has failed", func() bool { return strings.Contains(p.log.String(), "the program cannot be the worker that it was") })
	t.Setenv(declaredVar, path+".2") // of the next generation
	d.write(t, path+".2")
	ctx, cancel := context.WithTimeout(t.Context(), runtimetest.Patience)
	defer cancel()
	if err := p.Reload(ctx); err != nil {
		t.Fatal(err)
	}
	p.get()
	runtimetest.Eventually(t, "all workers are there", func() bool {
		s := p.slots()
		return s["web/0"].Generation == 2 && s["web/1"].Generation == 2 && s["web/1"].State == "running"
	})
}

// TestDeploySymlinkedReleases: 20 releases, each in its own directory behind one symbolic link and
// each with another tree, are deployed under load: no request fails.
func TestDeploySymlinkedReleases(t *testing.T) {
	if testing.Short() {
		t.Skip("it deploys 20 times")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	base := t.TempDir()
	current := filepath.Join(base, "current")
	program := filepath.Join(base, "program") // of each release a link: a copy takes long
	file, err := os.ReadFile(self)
	if err == nil {
		err = os.WriteFile(program, file, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	release := func(n int, d declared) {
		t.Helper()
		dir := filepath.Join(base, "releases", fmt.Sprint(n))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		d.Version = fmt.Sprint("release ", n)
		d.write(t, filepath.Join(dir, "tree.json"))
		if err := os.Link(program, filepath.Join(dir, "program")); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(current + ".new")
		if err := os.Symlink(filepath.Join("releases", fmt.Sprint(n)), current+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(current+".new", current); err != nil {
			t.Fatal(err)
		}
	}
	d := declared{Size: 1, Drain: 10 * time.Second}
	release(0, d)
	p := runtimetest.StartAt(t, filepath.Join(current, "program"), []string{treeVar + "=declared by release"})
	addr := p.Await(`up at (.+)`)[1]

	ctx, stop := context.WithCancel(t.Context())
	var counts [2]runtimetest.Counts
	loads := make(chan struct{}, 2)
	for i := range counts {
		go func() { // ends with ctx
			counts[i] = runtimetest.Load{URL: "http://" + addr, InFlight: 1, KeepAlive: i == 0, Timeout: runtimetest.Patience}.Run(ctx)
			loads <- struct{}{}
		}()
	}
	changes := []func(){
		func() { d.Size = 2 }, func() { d.Timeout = 30 * time.Second }, func() { d.Every = 2 * time.Second }, func() { d.Cron = true },
		func() { d.Env = []string{"A=1"} }, func() { d.Size = 1 }, func() { d.Drain = 9 * time.Second }, func() { d.Recycle = 1 << 40 },
		func() { d.Backlog = 100 }, func() { d.Tick = true }, func() { d.Orphans = 2 * time.Second }, func() { d.Spares = 1 },
		func() { d.Env = []string{"A=2"} }, func() { d.Cron = false }, func() { d.Size = 3 }, func() { d.Timeout = 0 },
		func() { d.Env = nil }, func() { d.Size = 1 }, func() { d.Tick = false }, func() { d.Size = 2 },
	}
	sizes, kept := 5, 11 // changes that reloads take over, and not
	if raced() {         // it takes long
		changes, sizes, kept = changes[:6], 2, 4
	}
	for i, change := range changes {
		n := i + 1
		change()
		release(n, d)
		p.Signal(syscall.SIGHUP)
		p.Await(fmt.Sprintf(`reloaded generation=%d `, n+1))
		if got := get(t, addr); !strings.Contains(got, fmt.Sprintf("of release %d,", n)) {
			t.Errorf("release %d: answered by %s", n, got)
		}
	}
	stop()
	<-loads
	<-loads
	for _, c := range counts {
		if c.OK == 0 || c.OK != c.Sent() {
			t.Error(c)
		}
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Wait(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	log := strings.Join(p.Lines(), "\n")
	for text, want := range map[string]int{"has the size that the new program declares": sizes, " WARN reload: ": kept, " ERROR ": 0} {
		if got := strings.Count(log, text); got != want {
			t.Errorf("the log has %q %d times, want %d", text, got, want)
		}
	}
}
