//go:build linux

package jobs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	coppice "github.com/coppice-go/coppice/runtime"
	"github.com/coppice-go/coppice/runtime/jobs"
	"github.com/coppice-go/coppice/runtime/runtimetest"
	"github.com/coppice-go/coppice/supervisor"
)

// dirVar has the directory that the processes of a test share.
const dirVar = "COPPICE_TEST_JOBS"

// shared returns the directory that the processes of a test share, which the test's own process
// makes: what a worker would make, nobody would remove.
func shared(t *testing.T) string {
	if os.Getenv(dirVar) == "" {
		t.Setenv(dirVar, t.TempDir())
	}
	return os.Getenv(dirVar)
}

// note notes that a call has run.
func note(n int) error {
	f, err := os.OpenFile(filepath.Join(os.Getenv(dirVar), "notes"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintln(f, n)
	return err
}

// notes returns how often each call has run.
func notes(t *testing.T) map[int]int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(os.Getenv(dirVar), "notes"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	times := map[int]int{}
	for line := range bytes.Lines(b) {
		n, err := strconv.Atoi(strings.TrimSpace(string(line)))
		if err != nil {
			t.Fatal(err)
		}
		times[n]++
	}
	return times
}

// stop is the call and the step after its function at which this process is to stop.
var stop atomic.Value

func init() {
	jobs.AtStep(func(step, id string) {
		if step == "claimed" { // which no call before this one can be late with
			for _, later := range []string{"answering", "arrived"} {
				if wanted(later) {
					stop.Store(id + later)
				}
			}
		}
		if step == "claimed" && wanted(step) || stop.CompareAndSwap(id+step, "") {
			stopHere()
		}
	})
}

// wanted reports, once, whether the test wants the call to stop at a step.
func wanted(step string) bool {
	dir := os.Getenv(dirVar)
	return dir != "" && os.Remove(filepath.Join(dir, step)) == nil
}

// stopHere stops until the test lets it go on.
func stopHere() {
	if err := os.WriteFile(filepath.Join(os.Getenv(dirVar), "reached"), []byte("."), 0); err != nil {
		panic(err)
	}
	f, err := os.Open(filepath.Join(os.Getenv(dirVar), "go on"))
	if err != nil {
		panic(err)
	}
	defer f.Close()
	_, _ = f.Read(make([]byte, 1))
}

// runNote is the function of a call that notes that it runs, and stops where the test wants it.
func runNote(n int) error {
	err := note(n)
	if wanted("running") {
		stopHere()
	}
	return err
}

// A fault is what happens when a call is at a step.
type fault string

const (
	kill      fault = "kill -9"                      // of its worker
	killAgain fault = "kill -9, if it may run again" // of the worker of a call that is Idempotent
	noCaller  fault = "death of its caller"          // which is a worker
	reload    fault = "reload"
	scaleDown fault = "scale down" // of its worker
)

var (
	steps  = []string{"queued", "offered", "claimed", "running", "answering", "arrived"}
	faults = []fault{kill, killAgain, noCaller, reload, scaleDown}
)

// TestKillAtEachMoment has each fault come at each step of a call, and looks at what comes of it:
//
//	queued     it waits
//	offered    it was sent to its worker, which has not read it
//	claimed    its worker has it
//	running    its function has begun
//	answering  its function has returned; the answer is not sent, which is one packet or none
//	arrived    the answer is at the queue; its worker goes on a little later
//
// COPPICE_STORM has how many are to come, of each step and fault by chance.
func TestKillAtEachMoment(t *testing.T) {
	dir, pipes := shared(t), []string{"reached", "go on", "calls"}
	for _, name := range pipes {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil && !errors.Is(err, syscall.EEXIST) { // it is there in a worker
			t.Fatal(err)
		}
	}
	calls := func(ctx context.Context, w *coppice.Worker) error {
		if err := w.Ready(); err != nil {
			return err
		}
		f, err := os.Open(filepath.Join(dir, "calls"))
		if err != nil {
			return err
		}
		var n int
		if _, err := fmt.Fscanln(f, &n); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "caller"), []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
			return err
		}
		_, err = jobs.Call[report](ctx, w, "work", order{"note", n})
		return fmt.Errorf("it is answered: %w", err)
	}
	rt := runtimetest.Tree(t, coppice.Config{ListenerIsolation: coppice.GoroutineIsolation, Children: []coppice.ChildSpec{
		pool(jobs.Config{}), // a spare may be older than the worker of slot 0, which is to stay
		coppice.Pool{Name: "caller", Size: 1, Spares: 1, Worker: calls, Shutdown: supervisor.BrutalKill, Intensity: supervisor.Intensity{Max: 1 << 20, Period: time.Second}},
	}})
	s := &stepped{t: t, rt: rt, dir: dir, pipes: map[string]*os.File{}}
	for _, name := range pipes {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		s.pipes[name] = f
	}
	if n, err := strconv.Atoi(os.Getenv("COPPICE_STORM")); err == nil {
		for seed := range n {
			random := rand.New(rand.NewPCG(uint64(seed), 1))
			s.play(steps[random.IntN(len(steps))], faults[random.IntN(len(faults))])
		}
		return
	}
	for _, f := range faults {
		for _, step := range steps {
			if !testing.Short() || f == kill {
				s.play(step, f)
			}
		}
	}
}

// stepped plays faults.
type stepped struct {
	t     *testing.T
	rt    *coppice.Runtime
	dir   string
	pipes map[string]*os.File
	calls int
}

func (s *stepped) status() jobs.Status {
	st, err := jobs.StatusOf(s.t.Context(), s.rt, "work")
	if err != nil {
		s.t.Fatal(err)
	}
	return st
}

// until waits for a state of the queue.
func (s *stepped) until(what string, is func(jobs.Status) bool) {
	s.t.Helper()
	runtimetest.Eventually(s.t, what, func() bool { return is(s.status()) })
}

// block has a worker run a call until the end.
func (s *stepped) block() (end func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	began := make(chan struct{}, 1)
	p := jobs.Start[report](ctx, s.rt, "work", order{Do: "report and wait"}, jobs.Options{Progress: jobs.OnProgress(func(int) { began <- struct{}{} })})
	<-began
	return func() { cancel(); _, _ = p.Wait() }
}

// reach prepares that the next call comes to a step, and stops there. arrived waits for it.
func (s *stepped) reach(step string, pid int) (arrived, goOn func()) {
	switch step {
	case "queued":
		end := s.block()
		return func() { s.until(step, func(st jobs.Status) bool { return st.Waiting == 1 }) }, end
	case "offered":
		s.signal(pid, syscall.SIGSTOP)
		runtimetest.Eventually(s.t, "it stands still", func() bool { // which a thread does when it is its turn
			tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
			return len(tasks) > 0 && !slices.ContainsFunc(tasks, func(task string) bool {
				b, _ := os.ReadFile(task)
				return !bytes.Contains(b, []byte(") T "))
			})
		})
		running := s.status().Running
		return func() { s.until(step, func(st jobs.Status) bool { return st.Running == running+1 }) },
			func() { s.signal(pid, syscall.SIGCONT) }
	}
	answered := s.status().Answered
	if err := os.WriteFile(filepath.Join(s.dir, step), nil, 0o600); err != nil {
		s.t.Fatal(err)
	}
	return func() {
			_ = s.pipes["reached"].SetReadDeadline(time.Now().Add(runtimetest.Patience))
			if _, err := s.pipes["reached"].Read(make([]byte, 1)); err != nil {
				s.t.Fatal(err)
			}
			if step == "arrived" {
				s.until(step, func(st jobs.Status) bool { return st.Answered > answered })
			}
		}, func() {
			if _, err := s.pipes["go on"].Write([]byte{1}); err != nil {
				s.t.Fatal(err)
			}
		}
}

func (s *stepped) signal(pid int, sig syscall.Signal) {
	if err := syscall.Kill(pid, sig); err != nil {
		s.t.Fatal(err)
	}
}

// pids returns the process IDs of the children of a name: one that drains has the name of the
// other.
func (s *stepped) pids(name string) (pids []int) {
	s.rt.Snapshot().Walk(func(c coppice.Tree) {
		if c.Name == name {
			pids = append(pids, c.PID)
		}
	})
	return pids
}

// pid returns the process ID of the worker in a slot.
func (s *stepped) pid(name string) int {
	for _, pid := range s.pids(name) { // slots come first
		return pid
	}
	return 0
}

// play has a fault come when a call is at a step.
func (s *stepped) play(step string, f fault) {
	s.calls++
	n, t := s.calls, s.t
	defer func() {
		if t.Failed() {
			t.Logf("call %d: %s at step %s", n, f, step)
		}
	}()
	bad := func(what ...any) { t.Helper(); t.Errorf("%s at step %s: %s", f, step, fmt.Sprintln(what...)) }
	worker := "work/workers/0"
	runtimetest.Eventually(t, "the worker serves", func() bool { // not the one that was killed last, or drains
		r, err := do(t, s.rt, order{Do: "answer"}, jobs.Options{})
		return err == nil && r.PID == s.pid(worker) && s.status().Workers == 1
	})
	end := func() {}
	if f == scaleDown { // the other worker has a call, and stays
		worker = "work/workers/1"
		if err := s.rt.Scale(t.Context(), "work/workers", 2); err != nil {
			t.Fatal(err)
		}
		s.until("2 workers", func(st jobs.Status) bool { return st.Workers == 2 })
		defer s.until("1 worker", func(st jobs.Status) bool { return st.Workers == 1 })
		end = s.block()
	}
	before := s.status()
	pid := s.pid(worker)
	arrived, goOn := s.reach(step, pid)
	if step == "arrived" && (f == reload || f == scaleDown) { // its worker ends then, and would leave the word to the next
		goOn = func() {}
	}
	var p *jobs.Pending[report]
	if f == noCaller {
		if _, err := fmt.Fprintln(s.pipes["calls"], n); err != nil {
			t.Fatal(err)
		}
	} else {
		p = jobs.Start[report](t.Context(), s.rt, "work", order{"note", n}, jobs.Options{Idempotent: f == killAgain})
	}
	arrived()
	switch f {
	case kill, killAgain:
		s.signal(pid, syscall.SIGKILL)
		if step == "queued" {
			goOn()
		}
	case noCaller:
		b, _ := os.ReadFile(filepath.Join(s.dir, "caller"))
		caller, err := strconv.Atoi(string(b))
		if err != nil {
			t.Fatal(err)
		}
		_ = syscall.Kill(caller, syscall.SIGKILL) // one that has its answer may have ended by itself
		s.until("the caller is missed", func(st jobs.Status) bool { return st.Canceled > before.Canceled || st.Answered > before.Answered })
		goOn()
	case reload:
		if err := s.rt.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		runtimetest.Eventually(t, "one caller", func() bool { return len(s.pids("caller/0")) == 1 }) // the other would take the next call
		goOn()
	case scaleDown:
		if err := s.rt.Scale(t.Context(), "work/workers", 1); err != nil {
			t.Fatal(err)
		}
		if step == "queued" { // it is for the worker that stays
			end()
		}
		goOn()
	}
	lost := (f == kill || f == killAgain) && step != "queued" && step != "arrived" // the call that its worker had
	runs := 1
	if step == "queued" && f == noCaller || f == kill && (step == "offered" || step == "claimed") {
		runs = 0
	}
	if f == killAgain && (step == "running" || step == "answering") {
		runs = 2
	}
	if p != nil {
		r, err := p.Wait()
		died, is := errors.AsType[*jobs.DiedError](err)
		switch {
		case f == kill && lost:
			if !is || died.Deaths != 1 || died.Exit == nil || died.Exit.Signal != syscall.SIGKILL || died.Exit.PID != pid {
				bad(r, err)
			}
		case err != nil || lost != (r.Attempt == 2):
			bad(r, err)
		}
	}
	end()
	s.until("nothing runs", func(st jobs.Status) bool { return st.Running+st.Waiting+st.Rerun == 0 })
	if got := notes(t)[n]; got != runs {
		bad("it has run", got, "times, not", runs)
	}
	if now := s.pid(worker); f == noCaller && now != pid {
		bad("its worker was replaced")
	}
	if f == kill || f == killAgain { // a thread of it may go on a little
		runtimetest.Eventually(t, "it is dead", func() bool { return syscall.Kill(pid, 0) != nil })
	}
	if f == killAgain { // what the next one takes of the budget
		for range 10 {
			_, _ = do(t, s.rt, order{Do: "answer"}, jobs.Options{}) // its worker may be the one that was killed
		}
	}
}

// TestKillAtAnyMoment kills the workers while many calls wait, are handed over, run and are
// answered. A call that is answered has run once; one whose worker died, at most once; and one that
// may run again is answered, as far as the pool's budget for that goes. COPPICE_STORM has the
// number of kills.
func TestKillAtAnyMoment(t *testing.T) {
	notShort(t)
	shared(t)
	rt := tree(t, jobs.Config{
		Pool:     coppice.Pool{Size: 2, Spares: 2},
		Defaults: jobs.Options{Retries: 20},
	})
	kills := 20
	if n, err := strconv.Atoi(os.Getenv("COPPICE_STORM")); err == nil {
		kills = n
	}
	ends := map[string]int{}
	var runs []bool // of each call that may run once: whether it was answered
	for kill := range kills {
		var once, again []*jobs.Pending[report]
		for range 8 {
			once = append(once, jobs.Start[report](t.Context(), rt, "work", order{"note", len(runs) + len(once)}, jobs.Options{}))
			again = append(again, jobs.Start[report](t.Context(), rt, "work", order{Do: "answer"}, jobs.Options{Idempotent: true}))
		}
		for range kill * 37 % 101 * 20 { // a moment
			runtime.Gosched()
		}
		if err := rt.Kill(t.Context(), "work/workers/"+strconv.Itoa(kill%2)); err != nil && !errors.Is(err, coppice.ErrNoChild) {
			t.Fatal(err)
		}
		for i := range once {
			_, err := once[i].Wait()
			ends[fmt.Sprintf("%T", err)]++
			runs = append(runs, err == nil)
			if err != nil {
				fails(t, err, func(e *jobs.DiedError) bool { return e.Exit != nil && e.Exit.Killed == coppice.KilledOperator })
			}
			if _, err := again[i].Wait(); err != nil {
				fails(t, err, func(e *jobs.DiedError) bool { return e.Deaths > 0 }) // the budget is used up
			}
		}
	}
	times := notes(t)
	for i, answered := range runs {
		if times[i] > 1 || answered && times[i] != 1 {
			t.Errorf("call %d, answered %t, ran %d times", i, answered, times[i])
		}
	}
	t.Log(kills, "kills:", ends)
}
