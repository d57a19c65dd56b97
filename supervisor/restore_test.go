package supervisor

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/coppice-go/coppice/supervisor/internal/rules"
)

var rewrite = flag.Bool("rewrite", false, "write the goldens in testdata anew")

// testClock is the bubble's clock, which goes on over a Restore.
type testClock struct{ systemClock }

var bubble = Config{Logger: quiet.Logger, Clock: testClock{}}

// worker is an instance that lives on over a Restore.
type worker struct{ Termination }

func (w *worker) Stop() { w.Terminate(Reason{Kind: Shutdown}, nil) }
func (w *worker) Kill() { w.Terminate(Reason{Kind: Killed}, nil) }

// workers starts workers, and has the latest of each path.
type workers struct {
	mu   sync.Mutex
	all  map[string]*worker
	fail map[string]error
}

func newWorkers() *workers { return &workers{all: map[string]*worker{}, fail: map[string]error{}} }

func (ws *workers) child(id string) ChildSpec {
	return ChildSpec{ID: id, Kind: "worker", Start: StarterFunc(func(_ context.Context, inc Incarnation) (Instance, error) {
		ws.mu.Lock()
		defer ws.mu.Unlock()
		if err := ws.fail[inc.Path]; err != nil {
			return nil, err
		}
		w := &worker{}
		ws.all[inc.Path] = w
		return w, nil
	})}
}

// failing makes the starts of a path fail.
func (ws *workers) failing(path string, err error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.fail[path] = err
}

func (ws *workers) at(path string) Instance {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if w := ws.all[path]; w != nil {
		return w
	}
	return nil
}

func (ws *workers) crash(path string) {
	ws.mu.Lock()
	w := ws.all[path]
	ws.mu.Unlock()
	w.Terminate(Reason{Kind: Error, Cause: errBoom}, nil)
	synctest.Wait()
}

func isWorker(_ string, i Instance) bool { _, is := i.(*worker); return is }

func suspended(t *testing.T, s *Supervisor) []byte {
	t.Helper()
	if err := s.Suspend(t.Context(), isWorker); err != nil {
		t.Fatal(err)
	}
	state, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// next restores a tree from the state of another, which ends.
func next(t *testing.T, s *Supervisor, spec Spec, ws *workers) *Supervisor {
	t.Helper()
	n, err := Restore(t.Context(), suspended(t, s), spec, bubble, ws.at)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// bury ends trees that were left suspended.
func bury(trees ...*Supervisor) {
	for _, s := range trees {
		s.Kill()
		<-s.Done()
	}
}

// TestSuspend: while it is held nothing is decided, what runs in memory is stopped, and Resume goes
// on as if all that came meanwhile came now.
func TestSuspend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ws := newWorkers()
		s := mustStart(t, Spec{Name: "app", Intensity: Intensity{Max: 3, Period: time.Minute}, Children: []ChildSpec{
			ws.child("w"),
			{ID: "f", Start: Func(idle)},
			{ID: "s", Start: Spec{Children: []ChildSpec{ws.child("x"), {ID: "g", Start: Func(idle)}}}},
		}})
		sub := s.Subscribe(100)
		state := suspended(t, s)
		wantShape(t, s, "w#1, f#1 down, s#1 [x#1, g#1 down]")
		wantStory(t, sub, "app/f#1 stopping", "app/f#1 stopped: shutdown", "app suspended",
			"app/s/g#1 stopping", "app/s/g#1 stopped: shutdown", "app/s suspended")
		if _, err := decodeTree(state); err != nil {
			t.Error(err)
		}
		ws.crash("app/w")
		added := make(chan error, 1)
		go func() {
			_, err := s.StartChild(t.Context(), ws.child("y"))
			added <- err
		}()
		time.Sleep(time.Hour)
		wantShape(t, s, "w#1, f#1 down, s#1 [x#1, g#1 down]")
		s.Resume()
		synctest.Wait()
		if err := <-added; err != nil {
			t.Error(err)
		}
		wantShape(t, s, "w#2, f#2, s#1 [x#1, g#2], y#1")
		if n := s.Snapshot(); n.Used != 1 || n.Find("s").Used != 0 { // w's crash alone
			t.Errorf("used %d and %d", n.Used, n.Find("s").Used)
		}
		shutdown(t, s)
	})
}

// TestSuspendWaits: for starts and stops under way, until its context ends; then all goes on.
func TestSuspendWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ws := newWorkers()
		release := make(chan struct{})
		slow := StarterFunc(func(ctx context.Context, inc Incarnation) (Instance, error) {
			select {
			case <-release:
			case <-ctx.Done():
			}
			return &worker{}, ctx.Err()
		})
		s := mustStart(t, Spec{Children: []ChildSpec{{ID: "f", Start: Func(idle)}, ws.child("w")}})
		go func() { _, _ = s.StartChild(t.Context(), ChildSpec{ID: "slow", Start: slow}) }()
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := s.Suspend(ctx, isWorker)
		if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "root/slow is starting") {
			t.Errorf("error %v", err)
		}
		ws.crash("root/w")
		wantShape(t, s, "f#1, w#2, slow starting")
		if _, err := s.State(); !errors.Is(err, ErrNotSuspended) {
			t.Errorf("error %v", err)
		}
		time.AfterFunc(time.Minute, func() { close(release) })
		began := time.Now()
		if err := s.Suspend(t.Context(), isWorker); err != nil || time.Since(began) != time.Minute {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		wantShape(t, s, "f#1 down, w#2, slow#1")

		s.Stop() // a stop wins
		synctest.Wait()
		if _, err := s.State(); !errors.Is(err, ErrStopped) {
			t.Errorf("error %v", err)
		}
		<-s.Done()
		if err := s.Suspend(t.Context(), nil); !errors.Is(err, ErrStopped) {
			t.Errorf("error %v", err)
		}
	})
}

// TestRestore: by the same specs the tree is the same: states, counts, budgets, delays, reasons and
// times; what ran in memory runs anew, uncounted; what ended in between is seen.
func TestRestore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ws := newWorkers()
		spec := func(start Starter) Spec {
			return Spec{
				Name: "app", Intensity: Intensity{Max: 4, Period: time.Hour}, Backoff: Backoff{Initial: time.Minute, NoJitter: true},
				Children: []ChildSpec{
					ws.child("a"), ws.child("b"), ws.child("c"),
					{ID: "f", Start: start},
					{ID: "s", Start: Spec{Strategy: RestForOne, Intensity: Intensity{Max: 2, Period: time.Hour}, Children: []ChildSpec{ws.child("x"), ws.child("y")}}},
				},
			}
		}
		s, err := Start(t.Context(), spec(Func(idle)), bubble)
		if err != nil {
			t.Fatal(err)
		}
		ws.crash("app/s/x")
		if err := s.TerminateChild(t.Context(), "c"); err != nil {
			t.Fatal(err)
		}
		ws.crash("app/b") // due in a minute
		began := time.Now()
		time.Sleep(10 * time.Second)
		want := fmt.Sprint(s.Snapshot())
		n := next(t, s, spec(Func(idle)), ws)
		defer bury(s)
		got := n.Snapshot()
		if text := strings.ReplaceAll(fmt.Sprint(got), "f#1 down, permanent, last exit shutdown", "f#1 running, permanent"); text != want {
			t.Errorf("the tree is\n%s\nand was\n%s", text, want)
		}
		if b := got.Find("b"); b.LastExit == nil || b.LastExit.String() != "error: boom" || !b.NextAttempt.Equal(began.Add(time.Minute)) || !b.Since.Equal(began) || b.Failures != 1 {
			t.Errorf("%+v, %v", b, b.LastExit)
		}
		ws.crash("app/s/y") // in the gap: it is seen by its Done
		time.Sleep(10 * time.Second)
		wantShape(t, n, "a#1, b#1 restarting, c#1 down, f#1 down, s#1 [x#2, y#2]") // it does nothing yet
		n.Resume()
		wantShape(t, n, "a#1, b#1 restarting, c#1 down, f#2, s#1 [x#2, y#3]")
		if got := n.Snapshot(); got.Used != 1 || got.Find("s").Used != 2 {
			t.Errorf("used %d and %d", got.Used, got.Find("s").Used)
		}
		time.Sleep(time.Until(began.Add(time.Minute - 1)))
		wantShape(t, n, "a#1, b#1 restarting, c#1 down, f#2, s#1 [x#2, y#3]")
		time.Sleep(time.Nanosecond)
		wantShape(t, n, "a#1, b#2, c#1 down, f#2, s#1 [x#2, y#3]")
		ws.crash("app/s/x") // the budget goes on: the third
		time.Sleep(0)
		wantShape(t, n, "a#1, b#2, c#1 down, f#2, s#1 restarting")
		shutdown(t, n)
	})
}

// TestRestoreOtherSpec: what differs is stopped and started once the tree goes on, in the order of
// OTP's supervisors, and the rest does not notice.
func TestRestoreOtherSpec(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ws := newWorkers()
		s, err := Start(t.Context(), Spec{Name: "app", Children: []ChildSpec{
			ws.child("keep"), ws.child("gone1"), ws.child("kind"), ws.child("gone2"),
			{ID: "sup", Start: Spec{Children: []ChildSpec{ws.child("x")}}},
		}}, bubble)
		if err != nil {
			t.Fatal(err)
		}
		kind := ws.child("kind")
		kind.Kind = "other"
		ws.failing("app/new2", errBoom)
		n := next(t, s, Spec{Name: "app", Strategy: OneForAll, Intensity: Intensity{Max: 5, Period: time.Minute}, Backoff: Backoff{Initial: time.Minute, NoJitter: true}, Children: []ChildSpec{
			ws.child("new1"), kind, ws.child("keep"), ws.child("new2"), ws.child("new3"),
		}}, ws)
		defer bury(s)
		sup := ws.at("app/sup") // whoever restores knows how the processes below it stop
		if sup != nil {
			t.Fatal(sup)
		}
		wantShape(t, n, "new1 down, kind#1, keep#1, new2 down, new3 down, gone1#1, gone2#1")
		sub := n.Subscribe(100)
		n.Resume()
		wantStory(t, sub,
			"app/gone2#1 stopping", "app/gone2#1 stopped: shutdown", "app/gone2 removed",
			"app/gone1#1 stopping", "app/gone1#1 stopped: shutdown", "app/gone1 removed",
			"app/kind#1 stopping", "app/kind#1 stopped: shutdown",
			"app/new1#1 started", "app/kind#2 started",
			"app/new2#1 start failed: error: boom", "app/new2 restarting: attempt 1, 4 of 5 left, in 1m0s",
			"app/new3#1 started", "app resumed")
		wantShape(t, n, "new1#1, kind#2, keep#1, new2 restarting, new3#1")
		ws.failing("app/new2", nil)
		time.Sleep(time.Minute)
		wantShape(t, n, "new1#2, kind#3, keep#2, new2#1, new3#2") // as one for all restarts
		shutdown(t, n)
	})
}

// TestRestoreDynamic: copies that live on go on, the others are gone with their Start.
func TestRestoreDynamic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ws := newWorkers()
		spec := Spec{Strategy: Dynamic, Children: []ChildSpec{ws.child("conn")}}
		s, err := Start(t.Context(), spec, bubble)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []ChildSpec{{}, {ID: "mine"}, {Start: Func(idle)}} {
			if _, err := s.StartChild(t.Context(), c); err != nil {
				t.Fatal(err)
			}
		}
		n := next(t, s, spec, ws)
		defer bury(s)
		n.Resume()
		wantShape(t, n, "conn-1#1, mine#1")
		ws.crash("root/mine")
		wantShape(t, n, "conn-1#1, mine#2")
		if c, err := n.StartChild(t.Context(), ChildSpec{}); err != nil || c.ID != "conn-4" {
			t.Errorf("%+v, %v", c, err)
		}
		shutdown(t, n)
	})
}

// TestRestoreAgain: a tree that was restored and not resumed can be dropped: another one made of
// the same state goes on. What one says of itself, the next says.
func TestRestoreAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ws := newWorkers()
		spec := Spec{Name: "app", Children: []ChildSpec{ws.child("a"), {ID: "s", Start: Spec{Children: []ChildSpec{ws.child("x")}}}}}
		s, err := Start(t.Context(), spec, bubble)
		if err != nil {
			t.Fatal(err)
		}
		state := suspended(t, s)
		trees := []*Supervisor{s}
		for range 3 {
			if _, err := Restore(t.Context(), state, spec, bubble, ws.at); err != nil {
				t.Fatal(err)
			}
			n, err := Restore(t.Context(), state, spec, bubble, ws.at)
			if err != nil {
				t.Fatal(err)
			}
			n.Resume()
			again := suspended(t, n)
			a, b := diagnosis(t, state), diagnosis(t, again)
			if a != b {
				t.Errorf("it was\n%s\nand is\n%s", a, b)
			}
			state, trees = again, append(trees, n)
		}
		bury(trees...)
	})
}

func diagnosis(t *testing.T, state []byte) string {
	t.Helper()
	text, err := cbor.Diagnose(state)
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(`{"Rules"`, "\n{\"Rules\"", `{"Path"`, "\n{\"Path\"").Replace(text)
}

// TestRestoreErrors: a state that cannot be, and a supervisor below that is not made, are errors.
func TestRestoreErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spec := Spec{Name: "app", Children: []ChildSpec{{ID: "s", Start: Spec{Children: []ChildSpec{{ID: "f", Start: Func(idle)}}}}}}
		s, err := Start(t.Context(), spec, bubble)
		if err != nil {
			t.Fatal(err)
		}
		state := suspended(t, s)
		defer bury(s)
		change := func(f func(*savedTree)) []byte {
			var v savedTree
			if err := decoding.Unmarshal(state, &v); err != nil {
				t.Fatal(err)
			}
			f(&v)
			b, err := cbor.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		sup := StarterFunc(func(context.Context, Incarnation) (Instance, error) { return nil, errBoom })
		for _, tt := range []struct {
			name  string
			state []byte
			spec  Spec
			want  string
		}{
			{"not CBOR", []byte("x"), spec, "supervisor: state: "},
			{"type", change(func(v *savedTree) { v.Supervisors[0].Path = "" }), spec, "not in the state"},
			{"key", change(func(v *savedTree) { v.Supervisors[0].Children[0].Rules.Key = 9 }), spec, "supervisor: state: app: child 0: Key 9"},
			{"phase", change(func(v *savedTree) { v.Supervisors[0].Children[0].Rules.Phase = rules.Starting }), spec, "Phase 1"},
			{"ID", change(func(v *savedTree) { v.Supervisors[0].Children[0].ID = "" }), spec, `ID ""`},
			{"ended, and waits for nothing", change(func(v *savedTree) { v.Supervisors[0].Children[0].Rules.Exited = true }), spec, "Exited"},
			{"clock", change(func(v *savedTree) { v.Supervisors[0].Epoch += time.Hour }), spec, "Epoch is 1h0m0s ahead"},
			{"below", state, Spec{Name: "app", Children: []ChildSpec{{ID: "s", Type: TypeSupervisor, Start: sup}}}, "app/s: start: boom"},
			{"spec", state, Spec{Children: []ChildSpec{{}}}, "ID must be set"},
		} {
			if _, err := Restore(t.Context(), tt.state, tt.spec, bubble, nil); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: error %v, want %q", tt.name, err, tt.want)
			}
		}
	})
}

// TestPlan compares what Plan says of a state, and of what becomes of it by other specs, with
// testdata/restore.txt.
func TestPlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ws := newWorkers()
		spec := Spec{Name: "app", Backoff: Backoff{Initial: time.Minute, NoJitter: true}, Children: []ChildSpec{
			ws.child("a"), ws.child("b"), ws.child("gone"),
			{ID: "f", Start: Func(idle)},
			ws.child("kind"),
			{ID: "s", Start: Spec{Children: []ChildSpec{ws.child("x")}}},
			{ID: "pool", Start: Spec{}},
		}}
		s, err := Start(t.Context(), spec, bubble)
		if err != nil {
			t.Fatal(err)
		}
		ws.crash("app/a")
		state := suspended(t, s)
		defer bury(s)
		spec.Strategy, spec.Intensity, spec.Backoff = RestForOne, Intensity{Max: 3, Period: time.Minute}, Backoff{}
		spec.Children[0], spec.Children[1] = spec.Children[1], spec.Children[0]
		spec.Children[0].Restart, spec.Children[0].Shutdown = Transient, Infinity
		spec.Children[2], spec.Children[4].Kind = ws.child("new"), "other"
		var out bytes.Buffer
		for _, other := range []func(string) (Spec, bool){
			func(path string) (Spec, bool) { return spec, path == "app" },
			func(path string) (Spec, bool) {
				return Spec{Children: []ChildSpec{ws.child("y")}}, path == "app/s"
			},
		} {
			lines, err := Plan(state, other)
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(&out, strings.Join(lines, "\n")+"\n")
		}
		var v savedTree
		if err := decoding.Unmarshal(state, &v); err != nil {
			t.Fatal(err)
		}
		for i := range v.Supervisors {
			v.Supervisors[i].Epoch = 0
		}
		fixed, err := cbor.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		out.WriteString(diagnosis(t, fixed) + "\n")
		const file = "testdata/restore.txt"
		if *rewrite {
			if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || !bytes.Equal(want, out.Bytes()) {
			t.Errorf("%v; -rewrite, and read the difference. It is\n%s", err, out.Bytes())
		}
	})
}

// ofBytes restores a tree from bytes; ok is false if they are an error.
func ofBytes(t *testing.T, state []byte) (n *Supervisor, ok bool) {
	spec := Spec{Name: "app", Strategy: RestForOne, Children: []ChildSpec{
		newWorkers().child("a"), {ID: "f", Start: Func(idle)}, {ID: "s", Start: Spec{Children: []ChildSpec{{ID: "x", Start: Func(idle)}}}},
	}}
	n, err := Restore(t.Context(), state, spec, Config{Logger: quiet.Logger}, func(path string) Instance {
		if len(path)%2 == 0 {
			return &worker{}
		}
		return nil
	})
	if _, e := Plan(state, func(string) (Spec, bool) { return spec, true }); err == nil && e != nil {
		t.Error(e)
	}
	if err != nil {
		return nil, false
	}
	n.Snapshot()
	return n, true
}

// sample is the state of a tree like that of ofBytes.
func sample(t testing.TB) []byte {
	s, err := Start(t.Context(), Spec{Name: "app", Strategy: RestForOne, Children: []ChildSpec{
		newWorkers().child("a"), newWorkers().child("b"), {ID: "f", Start: Func(idle)}, {ID: "s", Start: Spec{Children: []ChildSpec{{ID: "x", Start: Func(idle)}}}},
	}}, Config{Logger: quiet.Logger})
	if err != nil {
		t.Fatal(err)
	}
	defer bury(s)
	if err := s.Suspend(t.Context(), isWorker); err != nil {
		t.Fatal(err)
	}
	state, err := s.State()
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// FuzzRestore: bytes that no State returned are an error, or make a tree.
func FuzzRestore(f *testing.F) {
	f.Add(sample(f))
	f.Fuzz(func(t *testing.T, state []byte) { ofBytes(t, state) })
}

// TestRestoreOfBytes: a tree that a changed state makes goes on, and ends.
func TestRestoreOfBytes(t *testing.T) {
	state, r := sample(t), rand.New(rand.NewPCG(1, 2))
	trees := 0
	for range 3000 {
		b := bytes.Clone(state)
		for range 1 + r.IntN(3) {
			b[r.IntN(len(b))] = byte(r.Uint32())
		}
		if n, ok := ofBytes(t, b); ok {
			trees++
			n.Resume()
			bury(n)
		}
	}
	t.Logf("%d trees", trees)
}
