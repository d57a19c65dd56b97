package pool

import (
	"testing"
	"time"
)

// world is a supervisor and workers that do what the bytes of a fuzzer say, within
// what they may do.
type world struct {
	m   *monitor
	now Time
	gen Generation

	pending []Event // answers that are under way
	up      map[int]WorkerSeq
	asked   map[int]bool // starts that wait
	going   map[int]bool
	busy    map[WorkerSeq]bool // launched or appointed, not ready, not ended
	spares  map[WorkerSeq]bool // launched as spares, not warm
	alive   []WorkerSeq
	rolls   int
	shared  bool // a roll was for a share of the slots
	scaling bool
	stopped bool
	gone    bool
}

func (w *world) step(ev Event) {
	todo := []Event{ev}
	for len(todo) > 0 {
		out := w.m.step(w.now, todo[0])
		todo = todo[1:]
		for _, e := range out {
			switch e.Kind {
			case Launch:
				w.alive = append(w.alive, e.Worker)
				if e.Slot == Spare {
					w.spares[e.Worker] = true
				} else {
					w.busy[e.Worker] = true
				}
			case Assign:
				w.busy[e.Worker] = true
			case Up:
				w.asked[e.Slot] = false
				w.up[e.Slot] = e.Worker
			case Fail:
				w.asked[e.Slot] = false
			case Swap:
				w.up[e.Slot] = e.Worker
			case Down:
				delete(w.up, e.Slot)
				w.going[e.Slot] = false
			case Add:
				w.asked[e.Slot] = true
				todo = append(todo, Event{Kind: Start, Slot: e.Slot}, Event{Kind: Added, Slot: e.Slot})
			case Remove:
				if _, up := w.up[e.Slot]; up && !w.going[e.Slot] {
					w.going[e.Slot] = true
					todo = append(todo, Event{Kind: StopSlot, Slot: e.Slot})
				} else if w.asked[e.Slot] {
					todo = append(todo, Event{Kind: Cancel, Slot: e.Slot})
				}
				w.pending = append(w.pending, Event{Kind: Removed, Slot: e.Slot})
			case Rolled:
				w.rolls--
			case Scaled:
				w.scaling = false
			case Gone:
				w.gone = true
			case Drain, ForceDrain, Kill, Hold, Wake:
			}
		}
	}
}

func (w *world) ended(i int, final, orderly bool) {
	id := w.alive[i]
	w.alive = append(w.alive[:i:i], w.alive[i+1:]...)
	delete(w.busy, id)
	delete(w.spares, id)
	w.step(Event{Kind: Ended, Worker: id, Final: final, Orderly: orderly})
}

func (w *world) removable(n int) bool {
	_, up := w.up[n]
	return !up && !w.asked[n]
}

// FuzzStep lets bytes be a supervisor and workers, checks what doc.go promises after
// each step, and that everything settles when the supervisor and all workers then do their part.
func FuzzStep(f *testing.F) {
	f.Add([]byte{0, 2, 0x10, 0, 1, 1, 2, 2, 3, 3, 7, 2, 2, 3})
	f.Add([]byte{0x51, 3, 2, 2, 2, 9, 4, 4, 7, 2, 3, 3, 2, 2, 4, 8, 2, 3})
	f.Add([]byte{0x82, 4, 2, 2, 2, 2, 10, 3, 3, 7, 11, 4, 4, 2, 2, 12})
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < 2 {
			return
		}
		cfg := Config{
			Surge: int(b[0] & 3), Spares: int(b[0] >> 2 & 3), Unavailable: int(b[0] >> 4 & 3), Draining: int(b[0] >> 6),
			Recycling: 1 + int(b[1]>>6), RemovalOrder: RemovalOrder(b[1] >> 4 & 1), Retry: time.Second, MaxRetry: 4 * time.Second,
		}
		if cfg.Surge == 0 {
			cfg.Unavailable = max(cfg.Unavailable, 1)
		}
		w := &world{
			m: &monitor{t: t}, gen: 1, up: map[int]WorkerSeq{}, asked: map[int]bool{}, going: map[int]bool{},
			busy: map[WorkerSeq]bool{}, spares: map[WorkerSeq]bool{},
		}
		w.m.begin(cfg)
		size := 1 + int(b[1]&3)
		for n := range size {
			w.asked[n] = true
			w.step(Event{Kind: Start, Slot: n})
		}
		for _, c := range b[2:] {
			w.act(int(c&15), int(c>>4))
			if t.Failed() {
				return
			}
		}
		w.rest(t)
	})
}

// act does one thing, if it may be done.
func (w *world) act(what, which int) {
	slots := w.m.s.inOrder()
	pick := func() int {
		if len(slots) == 0 {
			return -1
		}
		return slots[which%len(slots)].n
	}
	switch n := pick(); what {
	case 0, 1: // the supervisor starts what is down
		if _, up := w.up[n]; n >= 0 && !up && !w.asked[n] && !w.stopped && !w.m.s.slots[n].removing {
			w.asked[n] = true
			w.step(Event{Kind: Start, Slot: n})
		}
	case 2, 3: // a worker comes up
		for _, id := range w.alive {
			if w.busy[id] {
				if which--; which < 0 {
					delete(w.busy, id)
					w.step(Event{Kind: Ready, Worker: id})
					return
				}
			} else if w.spares[id] {
				delete(w.spares, id)
				w.step(Event{Kind: Warmed, Worker: id})
				return
			}
		}
	case 4, 5: // a worker ends
		if len(w.alive) > 0 {
			w.ended(which%len(w.alive), which == 15, what == 5)
		}
	case 6:
		if w.asked[n] {
			w.step(Event{Kind: Cancel, Slot: n})
		}
	case 7:
		if !w.stopped {
			w.gen++
			w.rolls++
			share := max(0, which-8)
			w.shared = w.shared || share > 0
			w.step(Event{Kind: Roll, Gen: w.gen, Back: which == 0, Share: share})
		}
	case 8:
		w.step(Event{Kind: Abort})
	case 9:
		if _, up := w.up[n]; up && !w.going[n] {
			w.going[n] = true
			w.step(Event{Kind: StopSlot, Slot: n})
		}
	case 10:
		if !w.scaling && !w.stopped {
			w.scaling = true
			w.step(Event{Kind: Scale, Size: 1 + which%5})
		}
	case 11:
		if len(w.pending) > 0 && w.removable(w.pending[0].Slot) {
			ev := w.pending[0]
			w.pending = w.pending[1:]
			w.step(ev)
		}
	case 12:
		if len(w.alive) > 0 {
			w.step(Event{Kind: Due, Worker: w.alive[which%len(w.alive)], Brake: which%2 == 0, Once: which%3 == 0})
		}
	case 13:
		w.now += time.Duration(which) * time.Second / 4
		w.step(Event{Kind: Tick})
	case 14:
		if which == 15 && !w.stopped {
			w.stopped = true
			w.step(Event{Kind: Stop})
		}
	case 15:
		if _, up := w.up[n]; up {
			w.step(Event{Kind: KillSlot, Slot: n})
		}
	}
}

// rest has all do their part: workers come up, workers that are asked to end do,
// the supervisor starts what is down. Then every roll and scaling must be over.
func (w *world) rest(t *testing.T) {
	patience := 1000 + 10*w.rolls // a long input has hundreds of rolls in turn
	for round := 0; ; round++ {
		if round > patience {
			t.Fatalf("it does not come to rest: %d rolls, scaling %v, %+v", w.rolls, w.scaling, w.m.s)
		}
		w.now += 5 * time.Second
		w.step(Event{Kind: Tick})
		for range 40 {
			w.act(2, 0)
			w.act(11, 0)
		}
		for i := 0; i < len(w.alive); {
			x := w.m.s.workers[w.alive[i]]
			sl := w.m.s.slots[x.slot]
			if x.phase == draining || x.phase == dying || sl != nil && sl.current == x.id && (sl.stopRequested || sl.stopping) {
				w.ended(i, false, false)
				continue
			}
			i++
		}
		if w.stopped {
			for _, sl := range w.m.s.inOrder() {
				if _, up := w.up[sl.n]; up && !w.going[sl.n] {
					w.going[sl.n] = true
					w.step(Event{Kind: StopSlot, Slot: sl.n})
				}
				if w.asked[sl.n] {
					w.step(Event{Kind: Cancel, Slot: sl.n})
				}
			}
		} else {
			for i := range w.m.s.inOrder() {
				w.act(0, i)
			}
		}
		if t.Failed() {
			return
		}
		if w.stopped {
			if w.gone {
				if w.rolls != 0 || w.scaling {
					t.Errorf("gone with %d rolls and scaling %v not answered", w.rolls, w.scaling)
				}
				return
			}
			continue
		}
		settled := w.rolls == 0 && !w.scaling && w.m.s.sparesWanted() <= 0
		for _, sl := range w.m.s.slots {
			settled = settled && sl.running && sl.current != 0 && sl.next == 0 && (sl.gen == w.m.s.gen || w.shared && w.m.s.workers[sl.current].gen == sl.gen) && !sl.due
		}
		for _, x := range w.m.s.workers {
			// A slot whose way back has failed keeps the worker that it has.
			kept := x.phase == active && w.m.s.slots[x.slot].why == ForBack
			settled = settled && (x.phase == active || x.phase == spare) && (x.gen == w.m.s.gen || kept || w.shared)
		}
		if settled {
			return
		}
	}
}
