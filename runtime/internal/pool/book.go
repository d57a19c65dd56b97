package pool

// A SlotBook is what a pool remembers of a slot, for the pool that goes on in its place when the
// program is replaced in its process: plain data. The workers live on by themselves. Times are
// counted from when it was written.
type SlotBook struct {
	N               int
	Workers         int  // how many it has had, which the rules do not count
	Age             Time // how long its worker has been ready
	Done, Due, Once bool
	Early, Failures int
	Hold, Retry     Time // what is left of them
}

// Book returns what s remembers at now, by number of the slot.
func (s *State) Book(now Time) (slots []SlotBook) {
	for _, sl := range s.inOrder() {
		v := SlotBook{N: sl.n, Done: sl.done, Due: sl.due, Once: sl.once, Early: sl.early, Failures: sl.failures, Hold: max(0, sl.hold-now), Retry: max(0, sl.retry-now)}
		if w := s.workers[sl.current]; w != nil {
			v.Age = now - w.since
		}
		slots = append(slots, v)
	}
	return slots
}

// Recall gives s, which has no slot yet and begins now, the slots of a book. What no pool can have
// written counts as none.
func (s *State) Recall(slots []SlotBook) {
	for _, v := range slots {
		if v.N < 0 || s.slots[v.N] != nil {
			continue
		}
		s.slots[v.N] = &slot{
			n: v.N, gen: s.gen, done: v.Done, due: v.Due, once: v.Once, early: max(0, v.Early), failures: max(0, v.Failures),
			hold: bounded(v.Hold, maxEarlyLife), retry: bounded(v.Retry, s.cfg.MaxRetry), age: max(0, v.Age),
		}
	}
}

func bounded(t, limit Time) Time { return min(max(0, t), limit) }
