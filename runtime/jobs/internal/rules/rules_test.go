package rules

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/quarantine"
)

// TestSteps plays scenarios: events, and what is to be done after each.
func TestSteps(t *testing.T) {
	submit := func(id, tenant string) Event {
		return Event{Kind: Submit, Call: Call{ID: id, Tenant: tenant, Grace: time.Second}}
	}
	type step struct {
		at   Time
		ev   Event
		want string
	}
	for _, row := range []struct {
		name  string
		cfg   Config
		steps []step
	}{
		{"tenants take turns", Config{PerWorker: 1, Queue: 9}, []step{
			{0, submit("a1", "a"), ""},
			{0, submit("a2", "a"), ""},
			{0, submit("a3", "a"), ""},
			{0, submit("b1", "b"), ""},
			{0, Event{Kind: Join, Worker: 1}, "hand a1.1 to 1"},
			{0, Event{Kind: Answer, Worker: 1, ID: "a1", Run: 1, OK: true}, "a1: ended, hand b1.1 to 1"},
			{0, Event{Kind: Answer, Worker: 1, ID: "b1", Run: 1, OK: true}, "b1: ended, hand a2.1 to 1"},
		}},
		{"a full queue refuses", Config{PerWorker: 1, Queue: 1}, []step{{0, submit("a", ""), ""}, {0, submit("b", ""), "b: full"}}},
		{"or has callers wait for a place, in order", Config{PerWorker: 1, Queue: 1, Block: true}, []step{
			{0, submit("a", ""), ""},
			{0, submit("b", ""), "b: wait"},
			{0, Event{Kind: Reserve, Call: Call{ID: "b"}}, ""},
			{0, Event{Kind: Reserve, Call: Call{ID: "c"}}, ""},
			{0, Event{Kind: Join, Worker: 1}, "hand a.1 to 1, b: place"},
			{0, submit("d", ""), "d: wait"},
			{0, submit("b", ""), ""},
			{0, Event{Kind: Cancel, ID: "b"}, "b: dropped, c: place"},
		}},
		{"a deadline is soft, then hard, and what ran beside it is told", Config{PerWorker: 2, Queue: 9}, []step{
			{0, Event{Kind: Join, Worker: 1}, ""},
			{0, Event{Kind: Submit, Call: Call{ID: "a", Timeout: time.Second, Grace: time.Second}}, "hand a.1 to 1"},
			{0, submit("b", ""), "hand b.1 to 1"},
			{time.Second, Event{Kind: Wake}, "end the context of a.1 in 1"},
			{2 * time.Second, Event{Kind: Wake}, "kill 1 for a.1"},
			{2 * time.Second, submit("c", ""), ""},
			{2 * time.Second, Event{Kind: Death, Worker: 1}, "a: killed, b: died"},
		}},
		{"an idempotent call runs again after a pause", Config{PerWorker: 1, Queue: 9}, []step{
			{0, Event{Kind: Join, Worker: 1}, ""},
			{0, Event{Kind: Submit, Call: Call{ID: "a", Reruns: 1}}, "hand a.1 to 1"},
			{0, Event{Kind: Death, Worker: 1, Blame: true}, ""},
			{0, Event{Kind: Join, Worker: 2}, ""},
			{firstBackoff, Event{Kind: Wake}, "hand a.2 to 2"},
			{firstBackoff, Event{Kind: Answer, Worker: 1, ID: "a", Run: 1, OK: true}, ""}, // of the dead
			{firstBackoff, Event{Kind: Death, Worker: 2, Blame: true}, "a: died"},
		}},
		{"what did not reach its worker is first again", Config{PerWorker: 1, Queue: 9}, []step{
			{0, Event{Kind: Join, Worker: 1}, ""},
			{0, submit("a", ""), "hand a.1 to 1"},
			{0, submit("b", ""), ""},
			{0, Event{Kind: Undelivered, Worker: 1, ID: "a", Run: 1}, ""},
			{0, Event{Kind: Join, Worker: 2}, "hand a.2 to 2"},
			{0, Event{Kind: Death, Worker: 1}, ""},
		}},
		{"an answer after the time is an answer, an error is not", Config{PerWorker: 2, Queue: 9}, []step{
			{0, Event{Kind: Join, Worker: 1}, ""},
			{0, Event{Kind: Submit, Call: Call{ID: "a", Timeout: 1, Grace: time.Second}}, "hand a.1 to 1"},
			{0, Event{Kind: Submit, Call: Call{ID: "b", Timeout: 1, Grace: time.Second}}, "hand b.1 to 1"},
			{1, Event{Kind: Wake}, "end the context of a.1 in 1, end the context of b.1 in 1"},
			{2, Event{Kind: Answer, Worker: 1, ID: "a", Run: 1, OK: true}, "a: ended"},
			{2, Event{Kind: Answer, Worker: 1, ID: "b", Run: 1}, "b: expired"},
		}},
		{"a worker of one call gets one", Config{PerWorker: 1, Queue: 9, Once: true}, []step{
			{0, Event{Kind: Join, Worker: 1}, ""},
			{0, submit("a", ""), "hand a.1 to 1"},
			{0, Event{Kind: Answer, Worker: 1, ID: "a", Run: 1, OK: true}, "a: ended"},
			{0, submit("b", ""), ""},
		}},
		{"a process that ends takes its calls along", Config{PerWorker: 1, Queue: 9}, []step{
			{0, Event{Kind: Join, Worker: 1}, ""},
			{0, Event{Kind: Submit, Call: Call{ID: "a", From: "7"}}, "hand a.1 to 1"},
			{0, Event{Kind: Submit, Call: Call{ID: "b", From: "7"}}, ""},
			{0, Event{Kind: Gone, From: "7"}, "end the context of a.1 in 1, b: dropped"},
			{0, Event{Kind: Answer, Worker: 1, ID: "a", Run: 1}, "a: dropped"},
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := New(row.cfg)
			for i, st := range row.steps {
				var got []string
				for _, e := range s.Step(st.at, st.ev) {
					got = append(got, e.String())
				}
				if g := strings.Join(got, ", "); g != st.want {
					t.Fatalf("step %d: %q, want %q", i, g, st.want)
				}
			}
		})
	}
}

// world is a slow model of callers and workers, which the rules are played against.
type world struct {
	t       *testing.T
	cfg     Config
	s       *State
	random  *rand.Rand
	now     Time
	calls   map[string]Call // that have not been told
	told    map[string]bool
	runs    map[string]Effect // by id: handed, and not ended
	reruns  map[string]int    // runs of a call
	workers map[int]bool
	gone    map[string]bool // cancelled
}

func (w *world) step(ev Event) {
	for _, e := range w.s.Step(w.now, ev) {
		switch e.Kind {
		case Hand:
			c, known := w.calls[e.ID]
			_, runs := w.runs[e.ID]
			if !known || runs || !w.workers[e.Worker] || w.gone[e.ID] || w.told[e.ID] {
				w.t.Fatalf("%v: known %t, runs already %t, worker lives %t, cancelled %t", e, known, runs, w.workers[e.Worker], w.gone[e.ID])
			}
			if w.reruns[e.ID]++; w.reruns[e.ID] > c.Reruns+1 {
				w.t.Fatalf("%v runs for the time %d", e, w.reruns[e.ID])
			}
			w.runs[e.ID] = e
			beside := 0
			for _, r := range w.runs {
				if r.Worker == e.Worker {
					beside++
				}
			}
			if beside > w.cfg.PerWorker {
				w.t.Fatalf("%v: %d in one worker", e, beside)
			}
		case Soft, Kill:
			if r, ok := w.runs[e.ID]; !ok || r.Worker != e.Worker {
				w.t.Fatalf("%v does not run there", e)
			}
		case Reply:
			if e.Outcome == Place || e.Outcome == Wait {
				continue
			}
			if w.told[e.ID] || (e.Outcome == Dropped) != w.gone[e.ID] {
				w.t.Fatalf("%v: told before %t, cancelled %t", e, w.told[e.ID], w.gone[e.ID])
			}
			w.told[e.ID] = true
			delete(w.calls, e.ID)
			delete(w.runs, e.ID)
		}
	}
	waits, runs, later, _ := w.s.Len(w.now)
	if runs != len(w.runs) || waits+runs+later != len(w.calls) {
		w.t.Fatalf("%v: %d wait, %d run, %d later; the model has %d calls, %d run", ev, waits, runs, later, len(w.calls), len(w.runs))
	}
	if waits > 0 && len(w.s.alone) == 0 {
		for _, x := range w.s.workers {
			if w.s.hasRoom(x) {
				w.t.Fatalf("%d calls wait, and worker %d has room", waits, x.id)
			}
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// TestModel plays random events: each call is told once, runs in one worker at a time, no more
// often than it may, and never after it was cancelled; no worker has too many, and none idles while
// calls wait. At the end all have been told.
func TestModel(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		cfg := Config{PerWorker: 1 + random.IntN(3), Queue: 1 + random.IntN(20), Block: random.IntN(2) == 0, Quarantine: &quarantine.Config{}}
		w := &world{
			t: t, cfg: cfg, s: New(cfg), random: random, calls: map[string]Call{}, told: map[string]bool{},
			runs: map[string]Effect{}, reruns: map[string]int{}, workers: map[int]bool{}, gone: map[string]bool{},
		}
		next, born := 0, 0
		pick := func(keys []string) string {
			if len(keys) == 0 {
				return ""
			}
			return keys[random.IntN(len(keys))]
		}
		die := func(id int) {
			delete(w.workers, id)
			for _, call := range sortedKeys(w.runs) {
				if w.runs[call].Worker == id {
					delete(w.runs, call)
				}
			}
			w.step(Event{Kind: Death, Worker: id, Blame: random.IntN(3) > 0, Reason: "x"})
		}
		for range 400 {
			w.now += Time(random.IntN(int(200 * time.Millisecond)))
			switch random.IntN(10) {
			case 0, 1, 2, 3:
				next++
				c := Call{
					ID: fmt.Sprint("c", next), From: fmt.Sprint("p", random.IntN(3)), Tenant: fmt.Sprint("t", random.IntN(3)), Reruns: random.IntN(3),
					Key: fmt.Sprint("k", random.IntN(6)), Timeout: time.Duration(random.IntN(3)) * 100 * time.Millisecond, Grace: time.Duration(random.IntN(3)-1) * 100 * time.Millisecond,
				}
				if w.s.held() < cfg.Queue {
					w.calls[c.ID] = c
				}
				w.step(Event{Kind: Submit, Call: c})
			case 4:
				if len(w.workers) < 3 {
					born++
					w.workers[born] = true
					w.step(Event{Kind: Join, Worker: born})
				}
			case 5, 6, 7:
				if id := pick(sortedKeys(w.runs)); id != "" {
					r := w.runs[id]
					delete(w.runs, id)
					w.step(Event{Kind: Answer, ID: id, Run: r.Run, Worker: r.Worker, OK: random.IntN(2) == 0})
				}
			case 8:
				for id := range w.workers {
					if random.IntN(4) == 0 {
						die(id)
						break
					}
				}
			case 9:
				if id := pick(sortedKeys(w.calls)); id != "" && !w.gone[id] {
					w.gone[id] = true
					w.step(Event{Kind: Cancel, ID: id})
				}
			}
			if at, ok := w.s.Next(); ok && at <= w.now {
				w.step(Event{Kind: Wake})
			}
		}
		for i := 0; len(w.calls) > 0; i++ {
			if i > 10000 {
				t.Fatalf("seed %d: calls that never end: %v", seed, sortedKeys(w.calls))
			}
			w.now += time.Second
			w.step(Event{Kind: Wake})
			if len(w.workers) == 0 {
				born++
				w.workers[born] = true
				w.step(Event{Kind: Join, Worker: born})
			}
			for _, id := range sortedKeys(w.runs) {
				r := w.runs[id]
				delete(w.runs, id)
				w.step(Event{Kind: Answer, ID: id, Run: r.Run, Worker: r.Worker, OK: true})
			}
			for id := range w.workers {
				if x := w.s.workers[id]; x != nil && x.leaving {
					die(id)
				}
			}
		}
	}
}
