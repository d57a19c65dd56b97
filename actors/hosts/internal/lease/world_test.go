package lease_test

import (
	"container/heap"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/coppice-go/coppice/actors/hosts"
	"github.com/coppice-go/coppice/actors/hosts/internal/lease"
)

// mutant is a rule that is broken on purpose, to see that a run notices.
type mutant uint8

const (
	none              mutant = iota
	watchdogInRenewal        // the driver looks at the time when a renewal has ended only
	countedFromAnswer        // a lease is taken to last from the answer to its renewal on
	deleteByName             // a delete does not compare the revision
	fenceNotCompared         // what is written is not guarded
	goneBeforeStopped        // a name is given back before what it was for has stopped
	clockStandsStill         // the clock does not count the time in which the host was frozen
	claimOverAnother         // a claim does not look whether the name is there
	claimWithoutEntry        // a claim does not look whether the session's entry is there
	anyToken                 // what an earlier claim has left counts as the answer to a later one
	lateClaimStays           // what a late claim has made is not looked for
)

const (
	ttl    = 5 * time.Second
	margin = 500 * time.Millisecond
	stops  = 400 * time.Millisecond // the longest that what is owned takes to stop
)

// A world is an engine and hosts in virtual time, with faults by a seed. The time of the world is
// that of the engine; each host's clock has an offset and a rate of its own.
type world struct {
	rand   *rand.Rand
	mutant mutant
	now    time.Duration
	queue  queue
	order  int
	hosts  []*host
	calm   bool // no faults any more
	failed string

	revision uint64
	entries  map[string]*entry
	leases   map[int64]time.Duration // when it ends
	lease    int64

	guard   hosts.Guard
	written map[string]uint64 // the last fence that a write has come with
	fences  map[string]uint64 // the last holder's
	byHand  map[uint64]bool   // entries that another hand has deleted, by what made them
	unused  map[uint64]int    // entries that their hosts do not use, by what made them: seconds
	owned   int               // holdings there were
	refused int               // writes refused by the guard
	log     []string
}

type entry struct {
	name, boot string
	host       int
	lease      int64
	token      uint64
	created    uint64
}

type host struct {
	*world
	number        int
	boot          string
	machine       *lease.State
	offset        time.Duration
	rate          float64
	cut           bool // from the engine
	frozen        bool
	lost          time.Duration // what the clock has not counted
	backlog       []func()
	armed         lease.Time // the watchdog; 0: not
	wake          int        // counts the timers, so that an old one does nothing
	renewing      bool
	wanted, using map[string]*use
	dropping      string
	live, over    bool
	watched       time.Duration // when the last of the watch came
}

// use is one wish for a name, from Want to its end.
type use struct {
	name    string
	fence   uint64
	acting  bool
	stopped bool // told to
	frozen  bool // for a time while it acted
}

type timer struct {
	at    time.Duration
	order int
	do    func()
}

type queue []timer

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].order < q[j].order
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(timer)) }
func (q *queue) Pop() any {
	old := *q
	x := old[len(old)-1]
	*q = old[:len(old)-1]
	return x
}

func newWorld(seed uint64, n int, m mutant) *world {
	w := &world{
		rand: rand.New(rand.NewPCG(seed, 22)), mutant: m, entries: make(map[string]*entry), leases: make(map[int64]time.Duration),
		byHand: make(map[uint64]bool), unused: make(map[uint64]int),
		written: make(map[string]uint64), fences: make(map[string]uint64),
	}
	for i := range n {
		w.hosts = append(w.hosts, w.newHost(i, fmt.Sprintf("boot%d.1", i), 0))
	}
	return w
}

func (w *world) newHost(number int, boot string, before int64) *host {
	h := &host{
		world: w, number: number, boot: boot, wanted: make(map[string]*use), using: make(map[string]*use),
		offset: w.upTo(time.Hour), rate: 1 + (w.rand.Float64()-0.5)*2e-3,
		machine: lease.New(lease.Config{TTL: ttl, Margin: margin, Owner: boot, Before: before}),
	}
	w.after(0, func() { h.hear(lease.Event{Kind: lease.Wake}) })
	return h
}

func (w *world) after(d time.Duration, do func()) {
	w.order++
	heap.Push(&w.queue, timer{w.now + d, w.order, do})
}

func (w *world) upTo(d time.Duration) time.Duration { return time.Duration(w.rand.Int64N(int64(d))) }

func (w *world) chance(p float64) bool { return w.rand.Float64() < p }

func (w *world) fail(format string, args ...any) {
	if w.failed == "" {
		w.failed = fmt.Sprintf(format, args...)
	}
}

func (w *world) say(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf("%9.3f ", w.now.Seconds())+fmt.Sprintf(format, args...))
}

// run lets the world go on until end.
func (w *world) run(end time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= end && w.failed == "" {
		t := heap.Pop(&w.queue).(timer)
		w.now = t.at
		w.expire()
		t.do()
	}
	if w.failed == "" {
		w.now = end
	}
}

// ---- the engine

func (w *world) expire() {
	for _, id := range slices.Sorted(maps.Keys(w.leases)) {
		if w.leases[id] <= w.now {
			w.endLease(id)
		}
	}
}

func (w *world) endLease(id int64) {
	delete(w.leases, id)
	for _, key := range slices.Sorted(maps.Keys(w.entries)) {
		if w.entries[key].lease == id {
			w.remove(key)
		}
	}
}

func (w *world) remove(key string) {
	e := w.entries[key]
	delete(w.entries, key)
	w.revision++
	w.tell(lease.Event{Kind: lease.Vanished, Name: e.name, Revision: e.created})
}

func (w *world) put(key string, e *entry) {
	w.revision++
	e.created = w.revision
	w.entries[key] = e
	if e.name != "" {
		w.tell(lease.Event{Kind: lease.Seen, Name: e.name, Token: e.token, Lease: e.lease, Revision: e.created})
	}
}

// tell sends a change to the watch of every host, in order.
func (w *world) tell(ev lease.Event) {
	for _, h := range w.hosts {
		h.watched = max(h.watched, w.now+w.upTo(20*time.Millisecond))
		h.after(h.watched-w.now, func() { h.watch(ev) })
	}
}

func (h *host) watch(ev lease.Event) {
	if h.mutant == lateClaimStays && ev.Kind == lease.Seen {
		return
	}
	if h.cut {
		h.watched = max(h.watched, h.now+100*time.Millisecond)
		h.after(h.watched-h.now, func() { h.watch(ev) })
		return
	}
	h.awake(func() { h.hear(ev) })
}

// do makes a call, now, and returns its answer.
func (w *world) do(h *host, e lease.Effect) lease.Event {
	answer := lease.Event{Name: e.Name, Lease: e.Lease, Token: e.Token, Revision: e.Revision, Sent: e.Sent}
	key := fmt.Sprint("host/", h.number)
	_, there := w.leases[e.Lease]
	switch e.Kind {
	case lease.Grant:
		w.lease++
		w.leases[w.lease] = w.now + ttl
		answer.Kind, answer.Lease = lease.Granted, w.lease
	case lease.Enter:
		switch old := w.entries[key]; {
		case !there:
			answer.Kind = lease.Gone
		case old != nil:
			answer.Kind, answer.Owner, answer.Other, answer.Revision = lease.Barred, old.boot, old.lease, old.created
		default:
			w.put(key, &entry{boot: h.boot, host: h.number, lease: e.Lease})
			answer.Kind, answer.Revision = lease.Entered, w.revision
		}
	case lease.Renew:
		if answer.Kind = lease.Gone; there {
			w.leases[e.Lease] = w.now + ttl
			answer.Kind = lease.Renewed
		}
	case lease.Revoke:
		w.endLease(e.Lease)
		answer.Kind = lease.Revoked
	case lease.Claim:
		own, old := w.entries[key], w.entries["name/"+e.Name]
		noEntry := !there || own == nil || own.created != e.Entered
		if w.mutant == claimWithoutEntry {
			noEntry = false
		}
		switch {
		case noEntry:
			answer.Kind = lease.Gone
		case old != nil && old.lease == e.Lease && (old.token == e.Token || w.mutant == anyToken):
			answer.Kind, answer.Revision = lease.Claimed, old.created
		case old != nil && w.mutant != claimOverAnother:
			answer.Kind, answer.Other, answer.Revision = lease.Refused, old.lease, old.created
		default:
			w.put("name/"+e.Name, &entry{name: e.Name, host: h.number, lease: e.Lease, token: e.Token})
			answer.Kind, answer.Revision = lease.Claimed, w.revision
		}
	case lease.Delete:
		if old := w.entries["name/"+e.Name]; old != nil && (old.created == e.Revision || w.mutant == deleteByName) {
			w.remove("name/" + e.Name)
		}
		answer.Kind = lease.Deleted
	default:
	}
	return answer
}

// ---- a host

func (h *host) clock() lease.Time {
	return lease.Time(float64(h.now-h.lost)*h.rate) + lease.Time(h.offset)
}

// until returns how long it is until a time of the host's clock.
func (h *host) until(t lease.Time) time.Duration {
	return max(0, time.Duration(float64(t-h.clock())/h.rate)+1)
}

// awake does what the host's process does, now or when it is thawed.
func (h *host) awake(do func()) {
	if h.frozen {
		h.backlog = append(h.backlog, do)
		return
	}
	do()
}

func (h *host) hear(ev lease.Event) {
	if h.over {
		return
	}
	for _, e := range h.machine.Step(h.clock(), ev) {
		h.act(e)
	}
	h.wake++
	wake := h.wake
	if at, ok := h.machine.Next(); ok && !(h.mutant == watchdogInRenewal && h.renewing) {
		h.after(h.until(at), func() {
			h.awake(func() {
				if h.wake == wake {
					h.hear(lease.Event{Kind: lease.Wake})
				}
			})
		})
	}
}

func (h *host) act(e lease.Effect) {
	h.say("host %d: %v", h.number, e)
	switch e.Kind {
	case lease.Grant, lease.Enter, lease.Renew, lease.Revoke, lease.Claim, lease.Delete:
		h.call(e)
	case lease.Arm:
		h.armed = e.At
	case lease.Disarm:
		h.armed = 0
	case lease.Own:
		h.own(e)
	case lease.Stop:
		u := h.using[e.Name]
		if u == nil && h.dropping == e.Name {
			break // it has stopped: its Drop is the event
		}
		if u == nil || u.fence != e.Revision || u.stopped {
			h.fail("host %d: stop of what is not owned: %v", h.number, e)
			return
		}
		u.stopped = true
		h.after(h.upTo(stops), func() { h.awake(func() { h.end(u) }) })
		if h.mutant == goneBeforeStopped {
			h.hear(lease.Event{Kind: lease.Drop, Name: e.Name})
		}
	case lease.Answer:
		switch e.Outcome {
		case lease.Taken, lease.Doubted, lease.Closing:
			delete(h.wanted, e.Name)
		case lease.Freed, lease.Lost:
		default:
			h.fail("host %d: %v", h.number, e)
		}
	case lease.Report:
		h.live = e.Outcome == lease.Live
	case lease.End:
		h.over = true
	}
}

// call makes a call: the way there and back takes time, or is lost; what is on its way may come
// when nobody waits for it any more.
func (h *host) call(e lease.Effect) {
	if e.Kind == lease.Renew {
		h.renewing = true
	}
	answered := false
	answer := func(ev lease.Event) {
		h.awake(func() {
			if !answered {
				answered = true
				if e.Kind == lease.Renew {
					h.renewing = false
					if h.mutant == countedFromAnswer {
						ev.Sent = h.clock()
					}
				}
				h.hear(ev)
			}
		})
	}
	h.after(ttl/3, func() {
		answer(lease.Event{Kind: lease.Failed, Of: e.Kind, Name: e.Name, Lease: e.Lease, Token: e.Token, Revision: e.Revision})
	})
	way := func() time.Duration {
		switch {
		case h.calm || h.chance(0.85):
			return h.upTo(10 * time.Millisecond)
		case h.chance(0.7):
			return h.upTo(ttl / 3)
		}
		return h.upTo(2 * ttl)
	}
	lost := func() bool { return h.cut || !h.calm && h.chance(0.05) }
	if lost() && h.chance(0.5) {
		return
	}
	held := h.cut // in the network, until it is whole
	var arrive func()
	arrive = func() {
		if held && h.cut {
			h.after(50*time.Millisecond, arrive)
			return
		}
		ev := h.do(h, e)
		if !lost() {
			h.after(way(), func() { answer(ev) })
		}
	}
	h.after(way(), arrive)
}

func (h *host) own(e lease.Effect) {
	u := h.wanted[e.Name]
	if u == nil || h.armed == 0 || h.clock() >= h.armed {
		h.fail("host %d: owns %s, wanted %v, armed %v at %v", h.number, e.Name, u != nil, h.armed, h.clock())
		return
	}
	if e.Revision <= h.fences[e.Name] && !h.byHand[e.Revision] {
		h.fail("host %d: fence %d of %s after %d", h.number, e.Revision, e.Name, h.fences[e.Name])
	}
	h.fences[e.Name] = max(h.fences[e.Name], e.Revision)
	delete(h.wanted, e.Name)
	h.using[e.Name] = u
	u.fence, u.acting = e.Revision, true
	h.owned++
	for _, other := range h.hosts {
		if h.byHand[e.Revision] {
			break
		}
		if o := other.using[e.Name]; other != h && o != nil && o.acting && !o.frozen && !h.byHand[o.fence] && !other.frozen {
			h.fail("host %d owns %s by %d while host %d acts by %d", h.number, e.Name, u.fence, other.number, o.fence)
		}
	}
	h.write(u)
	h.after(h.upTo(4*ttl), func() { h.awake(func() { h.end(u) }) })
}

// write sends what a holder writes with its fence, as long as it acts.
func (h *host) write(u *use) {
	if !u.acting {
		return
	}
	h.after(h.upTo(time.Second), func() {
		if h.mutant != fenceNotCompared && h.guard.Check(hosts.Fence{Name: u.name, Number: u.fence}) != nil {
			h.refused++
			return
		}
		if u.fence < h.written[u.name] {
			h.fail("a write of fence %d after one of %d", u.fence, h.written[u.name])
		}
		h.written[u.name] = u.fence
	})
	h.after(100*time.Millisecond+h.upTo(100*time.Millisecond), func() { h.awake(func() { h.write(u) }) })
}

// end: what a name was for has stopped.
func (h *host) end(u *use) {
	if h.using[u.name] != u || !u.acting {
		return
	}
	u.acting = false
	delete(h.using, u.name)
	h.say("host %d: %s has stopped", h.number, u.name)
	h.dropping = u.name
	h.hear(lease.Event{Kind: lease.Drop, Name: u.name})
	h.dropping = ""
}

// wish wants a name, and may think better of it.
func (h *host) wish(name string) {
	if h.over || h.wanted[name] != nil || h.using[name] != nil {
		return
	}
	u := &use{name: name}
	h.wanted[name] = u
	h.hear(lease.Event{Kind: lease.Want, Name: name})
	if h.chance(0.3) && !h.calm {
		h.after(h.upTo(time.Second), func() {
			h.awake(func() {
				if h.wanted[name] == u {
					delete(h.wanted, name)
					h.hear(lease.Event{Kind: lease.Drop, Name: name})
				}
			})
		})
	}
}

func (h *host) freeze(d time.Duration) {
	if h.frozen {
		return
	}
	h.frozen = true
	h.say("host %d is frozen", h.number)
	for _, u := range h.using {
		u.frozen = true
	}
	h.after(d, func() { h.thaw(d) })
}

func (h *host) thaw(d time.Duration) {
	h.frozen = false
	h.say("host %d is thawed", h.number)
	if h.mutant == clockStandsStill {
		h.lost += d
	}
	backlog := h.backlog
	h.backlog = nil
	for _, do := range backlog {
		h.awake(do)
	}
	// What acted when it was frozen has stopped soon, if its name may be another's.
	for _, name := range slices.Sorted(maps.Keys(h.using)) {
		u := h.using[name]
		h.after(stops+time.Millisecond, func() {
			if e := h.entries["name/"+name]; u.acting && !h.byHand[u.fence] && !h.frozen && (e == nil || e.created != u.fence) {
				h.fail("host %d acts for %s long after it was thawed", h.number, name)
			}
		})
	}
}
