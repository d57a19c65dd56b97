package supervisor

import (
	"context"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
)

// Subscription delivers the events of a supervisor and of all supervisors
// below it, to one reader. It never delays a supervisor: when its buffer is full the
// oldest event is dropped, and the next delivered event has the number of those dropped.
type Subscription struct {
	publisher *publisher

	mu     sync.Mutex
	ring   []Event // guarded by mu; len is the capacity
	first  int
	count  int
	lost   uint64 // since the last delivery
	total  uint64
	closed bool
	wake   chan struct{} // one token: something changed
}

// Next returns the next event. It waits until there is one; the end of ctx
// ends the wait with ctx's error. After the supervisor's SupervisorDown event,
// or after Close and what was buffered, it returns [ErrClosed].
func (s *Subscription) Next(ctx context.Context) (Event, error) {
	for {
		if ev, ok, closed := s.pop(); ok {
			return ev, nil
		} else if closed {
			return Event{}, ErrClosed
		}
		select {
		case <-s.wake:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// Events returns the events to come, until the supervisor's last one, the end of ctx, or Close.
func (s *Subscription) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		for {
			ev, err := s.Next(ctx)
			if err != nil || !yield(ev) {
				return
			}
		}
	}
}

// Lost returns how many events were dropped in all.
func (s *Subscription) Lost() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// Close ends the subscription. Idempotent.
func (s *Subscription) Close() {
	s.publisher.remove(s)
	s.end()
}

func (s *Subscription) end() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.signal()
}

func (s *Subscription) pop() (ev Event, ok, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.count == 0 {
		if s.closed {
			s.signal() // for other readers
		}
		return Event{}, false, s.closed
	}
	ev = s.ring[s.first]
	s.ring[s.first] = Event{}
	s.first = (s.first + 1) % len(s.ring)
	s.count--
	ev.Lost, s.lost = s.lost, 0
	if s.count > 0 {
		s.signal()
	}
	return ev, true, false
}

func (s *Subscription) push(ev Event) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	if s.count == len(s.ring) {
		s.first = (s.first + 1) % len(s.ring)
		s.count--
		s.lost++
		s.total++
	}
	s.ring[(s.first+s.count)%len(s.ring)] = ev
	s.count++
	s.mu.Unlock()
	s.signal()
}

func (s *Subscription) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// publisher delivers a supervisor's events to its subscriptions, and to those of all
// supervisors above.
type publisher struct {
	parent *publisher
	mu     sync.Mutex // guards writers of subs and closed
	closed bool
	subs   atomic.Pointer[[]*Subscription]
}

func (h *publisher) subscribe(n int) *Subscription {
	s := &Subscription{publisher: h, ring: make([]Event, max(n, 1)), wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		s.closed = true
		s.signal()
		return s
	}
	var subs []*Subscription
	if p := h.subs.Load(); p != nil {
		subs = slices.Clone(*p)
	}
	subs = append(subs, s)
	h.subs.Store(&subs)
	return s
}

func (h *publisher) remove(s *Subscription) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.subs.Load()
	if p == nil {
		return
	}
	subs := slices.DeleteFunc(slices.Clone(*p), func(o *Subscription) bool { return o == s })
	if len(subs) == 0 {
		h.subs.Store(nil)
		return
	}
	h.subs.Store(&subs)
}

// hasSubscribers reports whether there are subscriptions here or above.
func (h *publisher) hasSubscribers() bool {
	for ; h != nil; h = h.parent {
		if h.subs.Load() != nil {
			return true
		}
	}
	return false
}

func (h *publisher) publish(ev Event) {
	for ; h != nil; h = h.parent {
		if subs := h.subs.Load(); subs != nil {
			for _, s := range *subs {
				s.push(ev)
			}
		}
	}
}

// close ends the subscriptions made here, after the last event.
func (h *publisher) close() {
	h.mu.Lock()
	h.closed = true
	subs := h.subs.Swap(nil)
	h.mu.Unlock()
	if subs != nil {
		for _, s := range *subs {
			s.end()
		}
	}
}
