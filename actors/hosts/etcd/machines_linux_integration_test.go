//go:build linux

package etcd_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"golang.org/x/sys/unix"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/etcd"
	"github.com/coppice-go/coppice/actors/hosts/seats"
	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

var machinesFor = flag.Duration("machines", 0, "how long TestMachines has faults; 0: each of them once")

const machineVar = "COPPICE_TEST_ETCD_MACHINE" // the host that has the counter

// logger of a process: a file to which each record is written by one call, so that what was told is
// there however the process ends.
func recorder() func(record) {
	monotonic = func() int64 {
		var ts unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) // cannot fail
		return ts.Nano()
	}
	name := fmt.Sprint(os.Getenv(treeVar), "-", os.Getpid(), ".log")
	f, err := os.OpenFile(filepath.Join(os.Getenv(dirVar), "log", name), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	return func(r record) {
		b, err := json.Marshal(r)
		if err == nil {
			_, err = f.Write(append(b, '\n'))
		}
		if err != nil {
			panic(err)
		}
	}
}

// machine is the program of a host: clients of the engine and of names; a singleton that acts and
// adds to a counter with its fence; on c the counter; and who watches a process of each other host.
func machine(cfg *hosts.Config) {
	cfg.Dir = filepath.Join(os.Getenv(dirVar), cfg.Name+".hosts")
	children := []coppice.ChildSpec{
		cfg.Singleton(hosts.Singleton{Name: "adder"}, adder),
		coppice.Pool{Name: "clients", Size: 1, Worker: func(ctx context.Context, w *coppice.Worker) error { return clients(ctx, w, cfg) }},
		coppice.Func{Name: "told", Run: func(ctx context.Context) error {
			log, told := recorder(), map[string]int{}
			log(record{Kind: "pid", Text: "master", Number: os.Getpid()})
			for ; ctx.Err() == nil; pause(ctx, 20*time.Millisecond) {
				for _, pool := range coppice.Running().Snapshot().Children {
					for _, p := range pool.Children {
						if p.PID != 0 && told[p.Name] != p.PID {
							told[p.Name] = p.PID
							log(record{Kind: "pid", Text: p.Name, Number: p.PID})
						}
					}
				}
			}
			return nil
		}},
	}
	if cfg.Name == os.Getenv(machineVar) {
		children = append(children, coppice.Pool{Name: "store", Size: 1, Worker: store})
	}
	coppice.Main(coppice.Config{Hosts: cfg, Children: children})
}

// clients makes the history of a host.
func clients(ctx context.Context, w *coppice.Worker, cfg *hosts.Config) error {
	log, s := recorder(), w.System()
	h := newHistory()
	h.log, h.epoch = log, func() int64 { return h.now() / int64(8*time.Second) }
	e, err := cfg.Engine.Open(cfg.Name)
	if err != nil {
		return err
	}
	defer e.Close()
	names, err := cfg.Names(s)
	if err != nil {
		return err
	}
	last := make(map[string]int) // by sender
	_, err = s.Spawn(ctx, "sink", func() actor.Actor {
		return actor.ReceiveFunc(func(c actor.Context) {
			if text, ok := c.Message().(string); ok {
				var from string
				var n int
				if _, err := fmt.Sscan(text, &from, &n); err != nil || n <= last[from] {
					log(record{Kind: "wrong", Text: fmt.Sprintf("message %q after %d: %v", text, last[from], err)})
				}
				last[from] = n
			}
		})
	})
	if err != nil {
		return err
	}
	if err := w.Ready(); err != nil {
		return err
	}
	var all group
	for i := range 2 {
		all.do(func() { h.registers(ctx, e, i) })
	}
	all.do(func() { h.names(ctx, names, 5) })
	all.do(func() {
		for ; ctx.Err() == nil; pause(ctx, 20*time.Millisecond) {
			log(record{Kind: "alive", Text: s.Address(), At: h.now()})
		}
	})
	for _, host := range seatHosts {
		if host != cfg.Name {
			all.do(func() { watchSink(ctx, s, host, log) })
		}
	}
	all.wait()
	return nil
}

// group is functions that are waited for.
type group struct{ ends []chan struct{} }

func (g *group) do(f func()) {
	end := make(chan struct{})
	g.ends = append(g.ends, end)
	go func() { defer close(end); f() }()
}

func (g *group) wait() {
	for _, end := range g.ends {
		<-end
	}
}

// watchSink sends numbers to the clients of another host, and watches them.
func watchSink(ctx context.Context, s *actors.System, host string, log func(record)) {
	for n := 0; ctx.Err() == nil; pause(ctx, 50*time.Millisecond) {
		limit, cancel := context.WithTimeout(ctx, time.Second)
		pid, err := s.Whereis(limit, "@"+host+"/clients/0/sink")
		cancel()
		if err != nil {
			continue
		}
		log(record{Kind: "monitor", Text: pid.Address})
		m := s.Monitor(pid)
		for watching := true; watching; {
			n++
			limit, cancel := context.WithTimeout(ctx, time.Second)
			_ = s.Send(limit, pid, fmt.Sprint(s.Address(), " ", n))
			cancel()
			select {
			case d := <-m.C:
				r := record{Kind: "down", Text: pid.Address + " " + d.Reason.String(), At: monotonic()}
				if d.Reason.Kind == supervisor.Signaled || d.Reason.Kind == supervisor.Exited {
					r.Number = 1 // its master has seen it
				}
				log(r)
				watching = false
			case <-ctx.Done():
				m.Cancel()
				return
			case <-time.After(30 * time.Millisecond):
			}
		}
	}
}

// adder is the singleton: it acts again and again, and adds to the counter.
func adder(ctx context.Context, w *coppice.Worker) error {
	log := recorder()
	f, _ := hosts.FenceOf(ctx)
	if _, err := w.System().Spawn(ctx, "adder", func() actor.Actor { return actor.ReceiveFunc(func(actor.Context) {}) }); err != nil {
		return err // that of a holding before has ended
	}
	var all group
	all.do(func() {
		for ; ctx.Err() == nil; pause(ctx, 10*time.Millisecond) {
			log(record{Kind: "act", Fence: f.Number, At: monotonic(), Number: os.Getpid()})
		}
	})
	for ; ctx.Err() == nil; pause(ctx, 20*time.Millisecond) {
		log(record{Kind: "add"})
		limit, cancel := context.WithTimeout(ctx, time.Second)
		answer, err := actors.Ask[string](limit, w.System(), w.System().LookupAt(os.Getenv(machineVar), "store/0/counter"), "add")
		cancel()
		if err == nil {
			log(record{Kind: answer}) // added or stale
		}
	}
	all.wait()
	return nil
}

// store has the counter: in a file, with the highest fence.
func store(ctx context.Context, w *coppice.Worker) error {
	if err := w.Ready(); err != nil { // a reload does not end the one before until then
		return err
	}
	f, err := os.OpenFile(filepath.Join(os.Getenv(dirVar), "counter"), os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil { // one before may not have ended yet
		return err
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		return err
	}
	lines := strings.Fields(string(b))
	var guard hosts.Guard
	value, fence := len(lines), uint64(0)
	if value > 0 {
		if _, err := fmt.Sscan(lines[value-1], &fence); err != nil {
			return err
		}
		if err := guard.Check(hosts.Fence{Name: "adder", Number: fence}); err != nil {
			return err
		}
	}
	_, err = w.System().Spawn(ctx, "counter", func() actor.Actor {
		return actor.ReceiveFunc(func(c actor.Context) {
			if c.Message() != "add" {
				return
			}
			if guard.CheckMessage(c, "adder") != nil {
				c.Respond("stale")
				return
			}
			fence, _ := hosts.FenceIn(c)
			if _, err := fmt.Fprintln(f, fence.Number); err != nil {
				panic(err)
			}
			c.Respond("added")
		})
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// machines are three network namespaces, whose cables meet in a bridge.
type machines struct {
	t        *testing.T
	prefix   string
	dir      string
	programs map[string]*runtimetest.Program
	stopped  map[int]bool // processes, by SIGSTOP
	told
}

// told is what the processes have told so far.
type told struct {
	read    map[string]int64 // bytes of each file
	history *history
	ids     map[string]int            // operations, by file and number
	pids    map[string]map[string]int // by the file of a master and the name of a child
	acts    []act
	alive   map[string]int64 // when a process was there last, by address
	downs   []down
	wrong   []string
	count   map[string]int // records, by host or by none, and kind
}

// act is when a singleton has acted.
type act struct {
	at    int64
	fence uint64
	file  string
}

// down is an end of a process that its master has seen.
type down struct {
	address, reason string
	at              int64
}

// newFleet returns machines without a network of their own, and their certificates.
func newFleet(t *testing.T) *machines {
	t.Helper()
	m := &machines{t: t, dir: shortDir(t), programs: make(map[string]*runtimetest.Program), stopped: make(map[int]bool), told: told{
		read: make(map[string]int64), history: newHistory(), ids: make(map[string]int), pids: make(map[string]map[string]int),
		alive: make(map[string]int64), count: make(map[string]int),
	}}
	if err := hosts.WriteCA(filepath.Join(m.dir, "ca.pem"), filepath.Join(m.dir, "ca.key"), "shop"); err != nil {
		t.Fatal(err)
	}
	for _, host := range seatHosts {
		at := func(file string) string { return filepath.Join(m.dir, file) }
		if err := hosts.WriteCert(at("ca.pem"), at("ca.key"), at(host+".pem"), at(host+".key"), "shop", host); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(m.dir, "log"), 0o700); err != nil {
		t.Fatal(err)
	}
	return m
}

func newMachines(t *testing.T) *machines {
	if os.Getuid() != 0 {
		t.Skip("network namespaces are root's")
	}
	m := newFleet(t)
	m.prefix = fmt.Sprint("cpe", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", m.prefix).CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: %v %s", err, out)
	}
	t.Cleanup(func() { m.ip("netns", "del", m.prefix) })
	m.ip("-n", m.prefix, "link", "add", "br0", "type", "bridge")
	m.ip("-n", m.prefix, "link", "set", "br0", "up")
	for i, host := range seatHosts {
		space := m.prefix + host
		m.ip("netns", "add", space)
		t.Cleanup(func() { m.ip("netns", "del", space) })
		m.ip("link", "add", "eth0", "netns", space, "type", "veth", "peer", "name", "p"+host, "netns", m.prefix)
		m.ip("-n", m.prefix, "link", "set", "p"+host, "master", "br0", "up")
		m.ip("-n", space, "address", "add", fmt.Sprint("10.78.0.", i+1, "/24"), "dev", "eth0")
		m.ip("-n", space, "link", "set", "lo", "up")
		m.ip("-n", space, "link", "set", "eth0", "up")
	}
	return m
}

func (m *machines) ip(args ...string) {
	m.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		m.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// cut has what a host sends to another be lost: it goes to a machine that is not there.
func (m *machines) cut(from, to string) {
	m.ip("-n", m.prefix+from, "neighbour", "replace", fmt.Sprint("10.78.0.", 1+slices.Index(seatHosts, to)), "lladdr", "02:00:00:00:00:99", "nud", "permanent", "dev", "eth0")
}

func (m *machines) heal() {
	for _, host := range seatHosts {
		m.ip("-n", m.prefix+host, "neighbour", "flush", "nud", "permanent", "dev", "eth0")
		m.ip("-n", m.prefix, "link", "set", "p"+host, "master", "br0")
	}
	for pid := range m.stopped {
		_ = syscall.Kill(pid, syscall.SIGCONT) // unless it has ended
	}
	clear(m.stopped)
}

func (m *machines) start(host string) {
	m.t.Helper()
	runtime.LockOSThread() // the program is of the namespace of the thread that starts it
	defer runtime.UnlockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		m.t.Fatal(err)
	}
	defer own.Close()
	its, err := os.Open("/run/netns/" + m.prefix + host)
	if err != nil {
		m.t.Fatal(err)
	}
	defer its.Close()
	if err := unix.Setns(int(its.Fd()), unix.CLONE_NEWNET); err != nil {
		m.t.Fatal(err)
	}
	defer func() {
		if err := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err) // the thread is of no use
		}
	}()
	m.programs[host] = runtimetest.Start(m.t, []string{treeVar + "=" + host, netVar + "=10.78.0", dirVar + "=" + m.dir, machineVar + "=c", "COPPICE_CONTROL=off"})
}

// update takes what the processes have told since the last time.
func (m *machines) update() {
	m.t.Helper()
	files, err := filepath.Glob(filepath.Join(m.dir, "log", "*"))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, path := range files {
		file := filepath.Base(path)
		f, err := os.Open(path)
		if err != nil {
			m.t.Fatal(err)
		}
		b, err := io.ReadAll(io.NewSectionReader(f, m.read[file], math.MaxInt64>>1))
		f.Close()
		if err != nil {
			m.t.Fatal(err)
		}
		b = b[:bytes.LastIndexByte(b, '\n')+1]
		m.read[file] += int64(len(b))
		for line := range bytes.Lines(b) {
			var r record
			if err := json.Unmarshal(line, &r); err != nil {
				m.t.Fatalf("%s: %v: %s", file, err, line)
			}
			m.take(file, r)
		}
	}
}

// take takes a record of a process.
func (x *told) take(file string, r record) {
	kind := r.Kind
	id := fmt.Sprint(file, " ", r.ID)
	switch r.Kind {
	case "begin":
		x.ids[id] = len(x.ids) + 1
		x.history.begun(x.ids[id], *r.Op)
	case "end":
		x.history.ended(x.ids[id], r.Op.In, r.Out, r.Op.Call, r.At, r.Fence)
		if kind = r.Op.In.Kind; r.Op.In.Unknown {
			kind += " in doubt"
		}
	case "wrong":
		x.wrong = append(x.wrong, file+": "+r.Text)
	case "act":
		x.acts = append(x.acts, act{r.At, r.Fence, file})
	case "alive":
		x.alive[r.Text] = max(x.alive[r.Text], r.At)
	case "down":
		if address, reason, _ := strings.Cut(r.Text, " "); r.Number == 1 {
			x.downs = append(x.downs, down{address, reason, r.At})
			kind = "end"
		}
	case "pid":
		if x.pids[file] == nil {
			x.pids[file] = make(map[string]int)
		}
		x.pids[file][r.Text] = r.Number
		if r.Text == "master" {
			kind = r.Text
		}
	}
	x.count[kind]++
	x.count[file[:1]+" "+kind]++
}

// processes are those of a host that are not known to have ended, by their names in the tree.
func (m *machines) processes(host string) map[string]int {
	m.update()
	pids := make(map[string]int)
	for name, pid := range m.pids[fmt.Sprint(host, "-", m.programs[host].PID(), ".log")] {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if err == nil && bytes.Contains(b, []byte(dirVar+"="+m.dir)) {
			pids[name] = pid
		}
	}
	return pids
}

func (m *machines) signal(host, name string, s syscall.Signal) {
	if pid := m.processes(host)[name]; pid != 0 && syscall.Kill(pid, s) == nil && s == syscall.SIGSTOP {
		m.stopped[pid] = true
	}
}

// end ends all processes of a host, as a machine does that has no power.
func (m *machines) end(host string) {
	m.programs[host].Signal(syscall.SIGKILL)
	for _, pid := range m.processes(host) {
		_ = syscall.Kill(pid, syscall.SIGKILL) // unless it has ended
	}
	m.programs[host].Wait()
}

// holder is the host that has acted as the singleton last.
func (m *machines) holder() string {
	m.update()
	last := slices.MaxFunc(m.acts, func(a, b act) int { return cmp.Compare(a.at, b.at) })
	return last.file[:1]
}

// fault begins something that heal ends.
func (m *machines) fault(kind int, r *rand.Rand) string {
	order := r.Perm(3)
	x, y := seatHosts[order[0]], seatHosts[order[1]]
	part := []string{"gateway/0", "member/0", "clients/0", "adder/0"}[r.IntN(4)]
	switch kind {
	case 0:
		m.ip("-n", m.prefix, "link", "set", "p"+x, "nomaster")
		return "isolate " + x
	case 1:
		m.cut(x, y)
		m.cut(y, x)
		return "cut " + x + " and " + y
	case 2:
		m.cut(x, y)
		return "cut from " + x + " to " + y
	case 3:
		m.signal(x, part, syscall.SIGKILL)
		return "kill " + part + " of " + x
	case 4:
		m.signal(x, part, syscall.SIGSTOP)
		return "stop " + part + " of " + x
	case 5:
		x = m.holder()
		m.signal(x, "adder/0", []syscall.Signal{syscall.SIGKILL, syscall.SIGSTOP}[r.IntN(2)])
		return "kill or stop the holder on " + x
	case 6:
		m.end(x)
		m.start(x)
		return "kill host " + x
	case 7:
		m.signal("c", "store/0", syscall.SIGKILL)
		return "kill the store"
	default:
		var all []string
		for range 3 {
			all = append(all, m.fault(r.IntN(8), r))
		}
		return strings.Join(all, ", ")
	}
}

const faultKinds = 9

// TestMachines: three programs on three machines, with an etcd in them that speaks through the
// trunks, while machines are isolated, cut off in pairs and in one direction, and processes and
// hosts killed and stopped, one after the other and at once. Registers and names are linearizable,
// fences rise, the singleton acts on one machine at a time, but for who was stopped, whose writes
// do not count; the counter has what was acknowledged; messages come once and in order; and no
// monitor reports the end of a process that lives. -machines=30m has faults for so long.
func TestMachines(t *testing.T) {
	if testing.Short() {
		t.Skip("starts three trees on three machines")
	}
	t.Parallel() // it waits for elections
	m := newMachines(t)
	for _, host := range seatHosts {
		m.start(host)
	}
	progress := func() {
		t.Helper()
		m.progress("a read", "b read", "c read", "a register", "b register", "c register", "added")
	}
	progress()
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	begun := time.Now()
	for n := 0; n < faultKinds || time.Since(begun) < *machinesFor; n++ {
		what := m.fault(n%faultKinds, r)
		lasts := 500 * time.Millisecond
		if *machinesFor > 0 {
			lasts = time.Duration(r.IntN(8000)) * time.Millisecond
		}
		t.Logf("%v: %s for %v", time.Since(begun).Round(time.Second), what, lasts)
		time.Sleep(lasts) // a fault lasts, and is not known to have been noticed
		m.heal()
		if n%faultKinds == faultKinds-1 {
			progress()
		}
	}
	for _, host := range seatHosts {
		m.end(host)
	}
	m.check()
}

// progress waits until each kind of line has come again.
func (m *machines) progress(kinds ...string) {
	m.t.Helper()
	m.update()
	before := maps.Clone(m.count)
	for _, kind := range kinds {
		runtimetest.Eventually(m.t, "progress of "+kind, func() bool {
			m.update()
			return m.count[kind] > before[kind]
		})
	}
}

// check checks what was told.
func (m *machines) check() {
	m.t.Helper()
	m.update()
	late, wrong := overlaps(m.acts)
	wrong = slices.Concat(m.wrong, wrong, m.history.check())
	for _, d := range m.downs {
		if m.alive[d.address] > d.at {
			wrong = append(wrong, fmt.Sprintf("%s was told to have ended (%s), and lived on for %v", d.address, d.reason, time.Duration(m.alive[d.address]-d.at)))
		}
	}
	b, err := os.ReadFile(filepath.Join(m.dir, "counter"))
	if err != nil {
		m.t.Fatal(err)
	}
	fences := strings.Fields(string(b))
	if value := len(fences); value < m.count["added"] || value > m.count["add"]-m.count["stale"] {
		wrong = append(wrong, fmt.Sprintf("the counter is %d", value))
	}
	last := uint64(0)
	for _, line := range fences {
		var fence uint64
		if _, err := fmt.Sscan(line, &fence); err != nil || fence < last {
			wrong = append(wrong, fmt.Sprintf("the counter takes fence %s after %d: %v", line, last, err))
		}
		last = fence
	}
	for _, w := range wrong {
		m.t.Error(w)
	}
	m.t.Logf("%v; %d acts of %d late, after a stop; the counter is %d", m.count, late, len(m.acts), len(fences))
}

// overlaps returns what is wrong with the acts of a singleton: one that acts when a later one has
// begun, but for a process that did nothing for half of the margin about then, as it was stopped,
// or had no processor. late is how many acts there were of such.
func overlaps(acts []act) (late int, wrong []string) {
	const halfMargin, lease = int64(125 * time.Millisecond), int64(2 * time.Second)
	slices.SortStableFunc(acts, func(a, b act) int { return cmp.Compare(a.at, b.at) })
	type holding struct{ begun, last, gap int64 } // gap: the end of the last one
	all, highest := make(map[uint64]*holding), uint64(0)
	for _, a := range acts {
		h := all[a.fence]
		if h == nil {
			if a.fence < highest {
				wrong = append(wrong, fmt.Sprintf("%s begins by fence %d after one of %d", a.file, a.fence, highest))
			}
			h = &holding{begun: a.at, last: a.at}
			all[a.fence] = h
		}
		if a.at-h.last >= halfMargin {
			h.gap = a.at
		}
		h.last = a.at
		highest = max(highest, a.fence)
		if begun := all[highest].begun; a.fence < highest {
			if late++; h.gap < begun-lease || h.gap == 0 {
				wrong = append(wrong, fmt.Sprintf("%s acts by fence %d, %v after %d had begun", a.file, a.fence, time.Duration(a.at-begun), highest))
			}
		}
	}
	return late, wrong
}

// TestOverlaps: two that act at once are noticed, also at first, and one that was stopped is not.
func TestOverlaps(t *testing.T) {
	at := func(ms int, fence uint64) act { return act{int64(ms+1) * int64(time.Millisecond), fence, "a"} }
	for name, row := range map[string]struct {
		acts        []act
		late, wrong int
	}{
		"one after the other":     {[]act{at(0, 1), at(10, 1), at(300, 2), at(310, 2)}, 0, 0},
		"at once":                 {[]act{at(0, 1), at(10, 1), at(20, 2), at(30, 1), at(40, 2)}, 1, 1},
		"a lower fence begins":    {[]act{at(0, 2), at(10, 1)}, 1, 2},
		"after a stop":            {[]act{at(0, 1), at(20, 2), at(200, 1)}, 1, 0},
		"after a stop long since": {[]act{at(0, 1), at(200, 1), at(210, 1), at(300, 1), at(400, 1), at(500, 1), at(600, 1), at(700, 1), at(800, 1), at(900, 1), at(1000, 1), at(1100, 1), at(1200, 1), at(1300, 1), at(1400, 1), at(1500, 1), at(1600, 1), at(1700, 1), at(1800, 1), at(1900, 1), at(2000, 1), at(2100, 1), at(2200, 1), at(2300, 1), at(2310, 2), at(2320, 1)}, 1, 1},
	} {
		if late, wrong := overlaps(row.acts); late != row.late || len(wrong) != row.wrong {
			t.Errorf("%s: %d late, %q", name, late, wrong)
		}
	}
}

// TestUpgradeKeepsNames: over an upgrade in place, and the reload that follows it, the host's
// session stays what it is. The singleton keeps its name over the former, and by the latter, as by
// any reload, goes on in a process of the new generation once, by a higher fence and when the old
// one has stopped; so do names of pools. When it loses its name it goes on in the same process,
// with another actor.
func TestUpgradeKeepsNames(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a tree with an etcd")
	}
	t.Parallel() // it waits for leases
	m := newFleet(t)
	p := runtimetest.Start(t, []string{treeVar + "=a", netVar + "=" + loopback(), dirVar + "=" + m.dir, machineVar + "=a", soloVar + "=1", "COPPICE_CONTROL=off"})
	m.programs["a"] = p
	e, err := etcd.External{Endpoints: []string{"unix://" + filepath.Join(m.dir, "a", seats.ClientSocket)}}.Open("a")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	// entered is what made an entry.
	entered := func(key string) (created uint64) {
		t.Helper()
		runtimetest.Eventually(t, "the entry "+key, func() bool {
			l, err := e.List(t.Context(), "coppice/shop/"+key)
			if err != nil || len(l.Entries) != 1 {
				return false
			}
			created = l.Entries[0].Created
			return true
		})
		return created
	}
	m.progress("added", "a register")
	host := entered("hosts/a")
	for n, event := range []string{"an upgrade", "a reload", "the loss of its name"} {
		switch n {
		case 0:
			p.Signal(syscall.SIGUSR2)
		case 1:
			p.Signal(syscall.SIGHUP)
		case 2:
			if _, err := e.Commit(t.Context(), hosts.Txn{Then: []hosts.Op{{Key: "coppice/shop/names/adder", Delete: true}}}); err != nil {
				t.Fatal(err)
			}
		}
		fences := make(map[uint64]bool)
		runtimetest.Eventually(t, "the singleton acts anew after "+event, func() bool {
			m.update()
			for _, a := range m.acts {
				fences[a.fence] = true
			}
			return len(fences) > n+1
		})
		m.progress("added", "a register")
		if h := entered("hosts/a"); h != host || len(fences) != n+2 {
			t.Errorf("after %s the host's entry is of %d, before %d, and the singleton had fences %v", event, h, host, fences)
		}
	}
	if m.count["master"] != 2 {
		t.Errorf("%d masters", m.count["master"])
	}
	m.end("a")
	m.check()
	if late, _ := overlaps(m.acts); late != 0 {
		t.Errorf("%d acts of the former generation after the first of the next", late)
	}
}
