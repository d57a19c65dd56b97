package rules

import (
	"fmt"
	"math"
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
		{"a full queue is shared by the tenants", Config{PerWorker: 1, Queue: 3}, []step{
			{0, submit("a1", "a"), ""},
			{0, submit("a2", "a"), ""},
			{0, submit("a3", "a"), ""},
			{0, submit("a4", "a"), "a4: full"},
			{0, submit("b1", "b"), "a3: full"},
			{0, submit("b2", "b"), "b2: full"},
		}},
		{"and those who wait for a place take turns", Config{PerWorker: 1, Queue: 1, Block: true}, []step{
			{0, submit("a1", "a"), ""},
			{0, Event{Kind: Reserve, Call: Call{ID: "a2", Tenant: "a"}}, ""},
			{0, Event{Kind: Reserve, Call: Call{ID: "a3", Tenant: "a"}}, ""},
			{0, Event{Kind: Reserve, Call: Call{ID: "b1", Tenant: "b"}}, ""},
			{0, Event{Kind: Join, Worker: 1}, "hand a1.1 to 1, a2: place"},
			{0, Event{Kind: Cancel, ID: "a2"}, "b1: place"},
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
		{"without Grace it is hard at once, with one that does not end never", Config{PerWorker: 2, Queue: 9}, []step{
			{0, Event{Kind: Join, Worker: 1}, ""},
			{0, Event{Kind: Submit, Call: Call{ID: "a", Timeout: 2, Grace: -1}}, "hand a.1 to 1"},
			{0, Event{Kind: Submit, Call: Call{ID: "b", Timeout: 1, Grace: math.MaxInt64}}, "hand b.1 to 1"},
			{1, Event{Kind: Wake}, "end the context of b.1 in 1"},
			{2, Event{Kind: Wake}, "end the context of a.1 in 1"},
			{2, Event{Kind: Wake}, "kill 1 for a.1"},
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
		{"but not what can be handed over once", Config{PerWorker: 1, Queue: 9}, []step{
			{0, Event{Kind: Join, Worker: 1}, ""},
			{0, Event{Kind: Submit, Call: Call{ID: "a", Single: true}}, "hand a.1 to 1"},
			{0, Event{Kind: Undelivered, Worker: 1, ID: "a", Run: 1}, "a: died"},
		}},
		{"a worker that leaves is told when it has nothing any more", Config{PerWorker: 1, Queue: 9}, []step{
			{0, Event{Kind: Join, Worker: 1}, ""},
			{0, submit("a", ""), "hand a.1 to 1"},
			{0, Event{Kind: Leave, Worker: 1}, ""},
			{0, submit("b", ""), ""},
			{0, Event{Kind: Answer, Worker: 1, ID: "a", Run: 1, OK: true}, "1 has left, a: ended"},
			{0, Event{Kind: Join, Worker: 2}, "hand b.1 to 2"},
			{0, Event{Kind: Answer, Worker: 2, ID: "b", Run: 1, OK: true}, "b: ended"},
			{0, Event{Kind: Leave, Worker: 2}, "2 has left"},
		}},
		{"two kills for callers that have gone are no deaths of the key, two at a deadline are", Config{PerWorker: 1, Queue: 9, Quarantine: &quarantine.Config{}}, []step{
			{0, Event{Kind: Join, Worker: 1}, ""},
			{0, Event{Kind: Submit, Call: Call{ID: "a", Key: "k", Grace: 1}}, "hand a.1 to 1"},
			{0, Event{Kind: Cancel, ID: "a"}, "end the context of a.1 in 1"},
			{1, Event{Kind: Wake}, "kill 1 for a.1"},
			{1, Event{Kind: Death, Worker: 1}, "a: dropped"},
			{2, Event{Kind: Join, Worker: 2}, ""},
			{2, Event{Kind: Submit, Call: Call{ID: "b", Key: "k", Timeout: 1, Grace: 1}}, "hand b.1 to 2"},
			{3, Event{Kind: Wake}, "end the context of b.1 in 2"},
			{4, Event{Kind: Wake}, "kill 2 for b.1"},
			{4, Event{Kind: Death, Worker: 2}, "b: killed"},
			{5, Event{Kind: Join, Worker: 3}, ""},
			{5, Event{Kind: Submit, Call: Call{ID: "c", Key: "k", Timeout: 1, Grace: 1}}, "hand c.1 to 3"},
			{6, Event{Kind: Wake}, "end the context of c.1 in 3"},
			{7, Event{Kind: Wake}, "kill 3 for c.1"},
			{7, Event{Kind: Death, Worker: 3}, "k is quarantined, c: killed"},
			{8, Event{Kind: Join, Worker: 4}, ""},
			{8, Event{Kind: Submit, Call: Call{ID: "d", Key: "k"}}, "d: quarantined"},
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
	began   map[string]Time   // the latest run
	soft    map[string]bool   // it was told that its time is over
	placed  []string          // that may submit now
	asked   map[string]Call   // that wait for a place
	workers map[int]bool
	used    map[int]bool    // workers that had a call
	left    map[int]bool    // workers that have said that they leave
	leaves  map[int]bool    // and have not been told that they have nothing
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
			if beside > w.cfg.PerWorker || w.cfg.Once && w.used[e.Worker] || w.left[e.Worker] {
				w.t.Fatalf("%v: %d in one worker; it had one before: %t, it has left: %t", e, beside, w.used[e.Worker], w.left[e.Worker])
			}
			w.used[e.Worker], w.began[e.ID], w.soft[e.ID] = true, w.now, false
		case Soft, Kill:
			if r, ok := w.runs[e.ID]; !ok || r.Worker != e.Worker {
				w.t.Fatalf("%v does not run there", e)
			}
			if c := w.calls[e.ID]; !w.gone[e.ID] && (c.Timeout == 0 || w.now-w.began[e.ID] < c.Timeout) {
				w.t.Fatalf("%v, after %v of %v", e, w.now-w.began[e.ID], c.Timeout)
			}
			w.soft[e.ID] = true
		case Found: // the quarantine has a model of its own
		case Left:
			for _, r := range w.runs {
				if r.Worker == e.Worker {
					w.t.Fatalf("%v, and has %v", e, r)
				}
			}
			if !w.leaves[e.Worker] {
				w.t.Fatalf("%v, and was not to", e)
			}
			delete(w.leaves, e.Worker)
		case Reply:
			if e.Outcome == Place {
				w.placed = append(w.placed, e.ID)
				continue
			}
			if e.Outcome == Wait {
				w.asked[e.ID] = w.calls[e.ID]
				delete(w.calls, e.ID)
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
	for id, r := range w.runs {
		if c := w.calls[id]; ev.Kind == Wake && c.Timeout > 0 && w.now-w.began[id] >= c.Timeout && !w.soft[id] && !w.gone[id] {
			w.t.Fatalf("%v was not told that its time is over", r)
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

// submitPlaced submits the calls that have got a place.
func (w *world) submitPlaced() {
	for len(w.placed) > 0 {
		id := w.placed[0]
		w.placed = w.placed[1:]
		if c, ok := w.asked[id]; ok {
			delete(w.asked, id)
			w.calls[id] = c
			w.step(Event{Kind: Submit, Call: c})
		}
	}
}

// timeouts are those of the model's calls. The longest is beyond the end of time.
var (
	timeouts = []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond, math.MaxInt64}
	graces   = []time.Duration{-1, 0, 100 * time.Millisecond, math.MaxInt64}
)

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
// calls wait; a worker that leaves gets none, and is told when it has none; no deadline is missed.
// At the end all have been told.
func TestModel(t *testing.T) {
	seeds := 300
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		random := rand.New(rand.NewPCG(uint64(seed), 1))
		cfg := Config{PerWorker: 1 + random.IntN(3), Queue: 1 + random.IntN(20), Block: random.IntN(2) == 0, Once: random.IntN(4) == 0, Quarantine: &quarantine.Config{}}
		w := &world{
			t: t, cfg: cfg, s: New(cfg), random: random, calls: map[string]Call{}, told: map[string]bool{},
			runs: map[string]Effect{}, reruns: map[string]int{}, began: map[string]Time{}, soft: map[string]bool{}, asked: map[string]Call{},
			workers: map[int]bool{}, used: map[int]bool{}, left: map[int]bool{}, leaves: map[int]bool{}, gone: map[string]bool{},
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
			delete(w.leaves, id)
			for _, call := range sortedKeys(w.runs) {
				if w.runs[call].Worker == id {
					delete(w.runs, call)
				}
			}
			w.step(Event{Kind: Death, Worker: id, Blame: random.IntN(3) > 0, Reason: "x"})
		}
		for range 400 {
			w.now += Time(random.IntN(int(200 * time.Millisecond)))
			switch random.IntN(13) {
			case 0, 1, 2, 3:
				next++
				c := Call{
					ID: fmt.Sprint("c", next), From: fmt.Sprint("p", random.IntN(3)), Tenant: fmt.Sprint("t", random.IntN(3)), Reruns: random.IntN(3),
					Key: fmt.Sprint("k", random.IntN(6)), Timeout: timeouts[random.IntN(len(timeouts))], Single: random.IntN(4) == 0, Grace: graces[random.IntN(len(graces))],
				}
				w.calls[c.ID] = c
				w.step(Event{Kind: Submit, Call: c})
				if c, ok := w.asked[c.ID]; ok {
					w.step(Event{Kind: Reserve, Call: c})
				}
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
			case 10:
				if id := pick(sortedKeys(w.runs)); id != "" {
					r := w.runs[id]
					delete(w.runs, id)
					w.reruns[id]-- // it did not run
					w.left[r.Worker] = true
					w.step(Event{Kind: Undelivered, ID: id, Run: r.Run, Worker: r.Worker})
				}
			case 11:
				for id := range w.workers {
					if random.IntN(8) == 0 && !w.left[id] {
						w.left[id], w.leaves[id] = true, true
						w.step(Event{Kind: Leave, Worker: id})
						break
					}
				}
			case 12:
				if from := fmt.Sprint("p", random.IntN(3)); random.IntN(8) == 0 {
					for id, c := range w.calls {
						w.gone[id] = w.gone[id] || c.From == from
					}
					for id, c := range w.asked {
						if c.From == from {
							delete(w.asked, id)
						}
					}
					w.step(Event{Kind: Gone, From: from})
				}
			}
			w.submitPlaced()
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
					if w.leaves[id] && len(x.calls) == 0 {
						t.Fatalf("seed %d: worker %d was not told that it has nothing", seed, id)
					}
					die(id)
				}
			}
			w.submitPlaced()
		}
	}
}
