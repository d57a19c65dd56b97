package netactor

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
)

// desk drives books by hand, with a clock of its own.
type desk struct {
	t   testing.TB
	b   *books
	l   *ledger
	now time.Time
	at  map[uint64][]*ticket // what is offered to whom, oldest first
}

func newDesk(t testing.TB, o opening, workers int) *desk {
	d := &desk{t: t, b: newBooks(), now: time.Unix(1000, 0), at: make(map[uint64][]*ticket)}
	d.l = d.b.addListener(1, o)
	for i := range workers {
		d.join(uint64(i + 1))
	}
	return d
}

func (d *desk) join(id uint64) {
	a := d.b.addWorker(Worker{ID: id, Slot: int(id) - 1})
	a.credit = 1000
	d.b.join(a, 1, 0)
	d.place()
}

func (d *desk) place() (to []uint64) {
	for t := d.b.place(d.l); t != nil; t = d.b.place(d.l) {
		id := t.s.a.worker.ID
		d.at[id] = append(d.at[id], t)
		to = append(to, id)
	}
	return to
}

// accept takes one connection in, and returns who is offered it; 0 if nobody.
func (d *desk) accept(peer string) uint64 {
	t := &ticket{fd: -1}
	if peer != "" {
		t.peer = netip.MustParseAddrPort(peer)
	}
	d.b.accepted(t, d.l)
	if to := d.place(); len(to) == 1 {
		return to[0]
	}
	return 0
}

// settle ends the oldest offer to a worker, and returns who is offered it next.
func (d *desk) settle(id uint64, o fdipc.Outcome, reason uint8) []uint64 {
	t := d.at[id][0]
	d.at[id] = d.at[id][1:]
	d.b.settled(t, o, reason, false, d.now)
	return d.place()
}

// first is the seat of worker 1.
func (d *desk) first() *seat { return d.b.workers[1].seats[1] }

func (d *desk) run(n int) string {
	var s strings.Builder
	for range n {
		fmt.Fprint(&s, d.accept(""))
	}
	return s.String()
}

func TestBooksRoundRobin(t *testing.T) {
	t.Run("cyclic while all have room", func(t *testing.T) {
		d := newDesk(t, opening{}, 3)
		if got := d.run(9); got != "123123123" {
			t.Errorf("order %s", got)
		}
	})
	t.Run("a full worker is passed over and comes in last when freed", func(t *testing.T) {
		d := newDesk(t, opening{Limits: Limits{Window: 1}}, 3)
		if got := d.run(3); got != "123" {
			t.Fatalf("order %s", got)
		}
		if n := d.l.admits(); n != 0 {
			t.Fatalf("admits %d with every window used up", n)
		}
		d.settle(2, fdipc.Claimed, 0)
		d.settle(1, fdipc.Claimed, 0)
		if got := d.run(2); got != "21" {
			t.Errorf("least recently freed is 2, then 1; got %s", got)
		}
	})
	t.Run("one unclaimed connection a worker, as in Node, with Window 1", func(t *testing.T) {
		d := newDesk(t, opening{Limits: Limits{Window: 1}}, 2)
		var got strings.Builder
		for range 6 {
			id := d.accept("")
			fmt.Fprint(&got, id)
			d.settle(id, fdipc.Claimed, 0)
		}
		if got.String() != "121212" {
			t.Errorf("order %s", &got)
		}
	})
}

func TestBooksReoffer(t *testing.T) {
	t.Run("X1 unclaimed at a death goes to another, claimed dies", func(t *testing.T) {
		d := newDesk(t, opening{}, 2)
		d.run(4)
		d.settle(1, fdipc.Claimed, 0)
		d.b.removeWorker(d.b.workers[1])
		if to := d.settle(1, fdipc.Returned, 0); !slices.Equal(to, []uint64{2}) {
			t.Fatalf("offered to %v, want 2", to)
		}
		if d.l.gone.Died != 1 || d.l.gone.Claimed != 1 || d.l.gone.Returned != 1 || !d.l.gone.Balanced() {
			t.Errorf("counts of the dead: %+v", d.l.gone)
		}
	})
	t.Run("X2 who is out of descriptors is left alone, then tried with one", func(t *testing.T) {
		d := newDesk(t, opening{}, 2)
		d.run(2)
		if to := d.settle(1, fdipc.Refused, fdipc.ReasonNoFiles); !slices.Equal(to, []uint64{2}) {
			t.Fatalf("offered to %v, want 2", to)
		}
		if got := d.run(3); got != "222" {
			t.Fatalf("offered to %s while 1 is left alone", got)
		}
		next := d.b.wake(d.now)
		if want := d.now.Add(firstSuspension); !next.Equal(want) {
			t.Fatalf("wakes at %v, want %v", next, want)
		}
		d.now = next
		d.b.wake(d.now)
		if r := d.first().room; r != 1 {
			t.Fatalf("room %d on trial, want 1", r)
		}
		for d.accept("") != 1 {
		}
		d.settle(1, fdipc.Claimed, 0)
		if r := d.first().room; r != defaultWindow {
			t.Errorf("room %d after a claim, want the whole window", r)
		}
	})
	t.Run("suspensions double to a limit", func(t *testing.T) {
		d := newDesk(t, opening{}, 1)
		d.accept("")
		want := firstSuspension
		for range 10 {
			d.settle(1, fdipc.Returned, 0)
			next := d.b.wake(d.now)
			if got := next.Sub(d.now); got != want {
				t.Fatalf("suspended for %v, want %v", got, want)
			}
			want = min(2*want, maxSuspension)
			d.now = next
			d.b.wake(d.now)
			d.place()
		}
	})
	t.Run("who says that it has closed is offered no more until it joins", func(t *testing.T) {
		d := newDesk(t, opening{}, 2)
		d.run(2)
		d.settle(1, fdipc.Refused, ReasonClosed)
		if got := d.run(3); got != "222" {
			t.Fatalf("offered to %s", got)
		}
		d.join(1)
		if got := d.run(2); !strings.Contains(got, "1") {
			t.Errorf("offered to %s after it joined again", got)
		}
	})
	t.Run("X3 with nobody there it waits for the next to join", func(t *testing.T) {
		d := newDesk(t, opening{}, 1)
		d.accept("")
		d.b.removeWorker(d.b.workers[1])
		if to := d.settle(1, fdipc.Returned, 0); to != nil {
			t.Fatalf("offered to %v", to)
		}
		if n := d.l.admits(); n != 0 {
			t.Fatalf("admits %d with nobody there", n)
		}
		d.join(2)
		if len(d.at[2]) != 1 {
			t.Errorf("the next worker was not offered it")
		}
	})
	t.Run("a reset client is counted and done with", func(t *testing.T) {
		d := newDesk(t, opening{}, 1)
		d.accept("")
		d.b.settled(d.at[1][0], fdipc.Returned, 0, true, d.now)
		if c := d.l.counts; c.Reset != 1 || !c.Balanced() || d.l.load != 0 {
			t.Errorf("counts %+v, load %d", c, d.l.load)
		}
	})
	t.Run("a broken link takes the worker off all listeners", func(t *testing.T) {
		d := newDesk(t, opening{}, 2)
		d.run(2)
		d.b.unsent(d.at[1][0], true, d.now)
		if to := d.place(); !slices.Equal(to, []uint64{2}) || d.first().joined {
			t.Errorf("offered to %v, joined %v", to, d.first().joined)
		}
	})
}

func TestBooksLimits(t *testing.T) {
	t.Run("X9 every worker at its limit: nothing is accepted until one ends", func(t *testing.T) {
		d := newDesk(t, opening{Limits: Limits{PerWorker: 2}}, 2)
		d.run(4)
		for range 2 {
			d.settle(1, fdipc.Claimed, 0)
			d.settle(2, fdipc.Claimed, 0)
		}
		if n := d.l.admits(); n != 0 {
			t.Fatalf("admits %d at the limit", n)
		}
		d.b.finished(d.b.workers[2], 1, 1)
		if n := d.l.admits(); n != 1 {
			t.Fatalf("admits %d after one ended", n)
		}
		if id := d.accept(""); id != 2 {
			t.Errorf("offered to %d, want 2", id)
		}
	})
	t.Run("total over all workers", func(t *testing.T) {
		d := newDesk(t, opening{Limits: Limits{Total: 3}}, 2)
		for range 3 {
			if d.l.admits() == 0 {
				t.Fatal("admits none below the total")
			}
			d.settle(d.accept(""), fdipc.Claimed, 0)
		}
		if n := d.l.admits(); n != 0 {
			t.Errorf("admits %d at the total", n)
		}
	})
	t.Run("paused admits none", func(t *testing.T) {
		d := newDesk(t, opening{}, 1)
		d.l.paused = true
		if n := d.l.admits(); n != 0 {
			t.Errorf("admits %d", n)
		}
	})
	t.Run("an end may be heard of before the claim", func(t *testing.T) {
		d := newDesk(t, opening{Limits: Limits{PerWorker: 1}}, 1)
		d.accept("")
		d.b.finished(d.b.workers[1], 1, 1)
		d.settle(1, fdipc.Claimed, 0)
		if s := d.first(); s.load() != 0 || s.counts.Open() != 0 {
			t.Errorf("load %d, open %d", s.load(), s.counts.Open())
		}
	})
	t.Run("a worker cannot end what it does not have", func(t *testing.T) {
		d := newDesk(t, opening{Limits: Limits{PerWorker: 1}}, 1)
		d.accept("")
		for _, n := range []uint64{2, 1 << 63, ^uint64(0)} {
			d.b.finished(d.b.workers[1], 1, n)
		}
		d.b.finished(d.b.workers[1], 99, 1)
		if s := d.first(); s.load() != 1 {
			t.Errorf("load %d, want 1", s.load())
		}
	})
	t.Run("a worker cannot join without end", func(t *testing.T) {
		d := newDesk(t, opening{}, 0)
		a := d.b.addWorker(Worker{ID: 9})
		for i := range maxSeats {
			if !d.b.join(a, uint64(i+1), 0) {
				t.Fatalf("join %d refused", i)
			}
		}
		if d.b.join(a, maxSeats+1, 0) {
			t.Error("one too many is let in")
		}
	})
	t.Run("join before the listener is known", func(t *testing.T) {
		b := newBooks()
		a := b.addWorker(Worker{ID: 1})
		b.join(a, 7, 3)
		l := b.addListener(7, opening{})
		if l.joined() != 1 || l.load != 3 || l.admits() == 0 {
			t.Errorf("joined %d, load %d, admits %d", l.joined(), l.load, l.admits())
		}
	})
}

func TestBooksPolicies(t *testing.T) {
	t.Run("least loaded", func(t *testing.T) {
		d := newDesk(t, opening{Policy: LeastLoaded}, 3)
		for _, want := range []uint64{1, 2, 3} { // all equal: the longest ago
			if got := d.accept(""); got != want {
				t.Fatalf("offered to %d, want %d", got, want)
			}
			d.settle(want, fdipc.Claimed, 0)
		}
		d.b.finished(d.b.workers[2], 1, 1)
		if got := d.accept(""); got != 2 {
			t.Errorf("offered to %d, want 2, which has none", got)
		}
	})
	t.Run("hash keeps a client with its slot, over a death and a replacement", func(t *testing.T) {
		d := newDesk(t, opening{Policy: Hash}, 4)
		home := make(map[string]uint64)
		used := make(map[uint64]int)
		for i := range 200 {
			ip := fmt.Sprintf("10.0.%d.%d:999", i/100, i%100)
			home[ip] = d.accept(ip)
			used[home[ip]]++
			d.settle(home[ip], fdipc.Claimed, 0)
		}
		for id := range uint64(4) {
			if used[id+1] < 10 {
				t.Errorf("worker %d has %d of 200 clients", id+1, used[id+1])
			}
		}
		d.b.removeWorker(d.b.workers[2])
		a := d.b.addWorker(Worker{ID: 5, Slot: 1}) // takes over slot 1
		a.credit = 1000
		d.b.join(a, 1, 0)
		for ip, id := range home {
			if id == 2 {
				id = 5
			}
			got := d.accept(strings.Replace(ip, ":999", ":1234", 1))
			if got != id {
				t.Errorf("%s went to %d, before to %d", ip, got, id)
			}
			d.settle(got, fdipc.Claimed, 0)
		}
	})
	t.Run("hash spills over when the home is full", func(t *testing.T) {
		d := newDesk(t, opening{Policy: Hash, Limits: Limits{Window: 1}}, 2)
		a, b := d.accept("10.0.0.1:1"), d.accept("10.0.0.1:2")
		if a == 0 || b == 0 || a == b {
			t.Errorf("offered to %d and %d", a, b)
		}
	})
	t.Run("custom", func(t *testing.T) {
		RegisterPicker("test-last", pickFunc(func(p netip.AddrPort, free []Load) int {
			if p.Port() == 7 {
				return 99 // out of range: the first
			}
			return len(free) - 1
		}))
		d := newDesk(t, opening{Policy: Custom, Picker: "test-last"}, 3)
		if got := d.accept("10.0.0.1:1"); got != 3 {
			t.Errorf("offered to %d, want 3", got)
		}
		if got := d.accept("10.0.0.1:7"); got != 1 {
			t.Errorf("offered to %d, want 1", got)
		}
	})
}

type pickFunc func(netip.AddrPort, []Load) int

func (f pickFunc) Pick(p netip.AddrPort, free []Load) int { return f(p, free) }

// model is the same rules once more, slow and obvious: it keeps every
// connection and every offer, and counts.
type model struct {
	conns []*modelConn
	fin   map[uint64]int // ends reported by each worker
	dead  map[uint64]bool
}

type modelConn struct {
	state string // waiting, offered, claimed, reset, dropped
	at    uint64
	t     *ticket
}

func (m *model) count(state string, at uint64) (n int) {
	for _, c := range m.conns {
		if c.state == state && (at == 0 || c.at == at) {
			n++
		}
	}
	return n
}

// FuzzBooks reads bytes as events and compares the books with the model after
// each: nothing is lost, nothing is with two workers, nobody has more than its
// window or its limit, and nothing waits while somebody has room.
func FuzzBooks(f *testing.F) {
	f.Add(uint8(0), []byte{0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 0x10, 0x21, 0x32, 0x43})
	f.Add(uint8(1), []byte{0, 0x40, 0, 0x41, 0, 1, 0x11, 2, 0x50, 0, 0x60, 3, 0x12})
	f.Add(uint8(2), []byte("accept, claim, refuse, die and come back"))
	f.Fuzz(func(t *testing.T, p uint8, events []byte) {
		events = events[:min(len(events), 400)] // the model is quadratic
		limits := Limits{Window: 1 + int(p>>4&3), PerWorker: int(p >> 6)}
		b := newBooks()
		l := b.addListener(1, opening{Policy: Policy(p % 3), Limits: limits})
		m := &model{fin: make(map[uint64]int), dead: make(map[uint64]bool)}
		now := time.Unix(0, 0)
		last := uint64(0)
		byTicket := make(map[*ticket]*modelConn)
		var alive []uint64
		place := func() {
			for tk := b.place(l); tk != nil; tk = b.place(l) {
				c := byTicket[tk]
				if c.state == "offered" {
					t.Fatal("offered to two")
				}
				if c.state != "waiting" {
					t.Fatalf("placed a connection that is %s", c.state)
				}
				c.state, c.at = "offered", tk.s.a.worker.ID
			}
		}
		for _, e := range events {
			n := int(e >> 4)
			switch e & 15 {
			case 0, 1, 2: // a connection comes
				if l.admits() == 0 {
					break
				}
				c := &modelConn{state: "waiting", t: &ticket{fd: -1}}
				c.t.peer = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 1)
				byTicket[c.t] = c
				m.conns = append(m.conns, c)
				b.accepted(c.t, l)
			case 3, 4, 5, 6, 7, 8: // an offer is settled
				var offered []*modelConn
				for _, c := range m.conns {
					if c.state == "offered" {
						offered = append(offered, c)
					}
				}
				if len(offered) == 0 {
					break
				}
				c := offered[n%len(offered)]
				switch e & 15 {
				case 3, 4:
					c.state = "claimed"
					b.settled(c.t, fdipc.Claimed, 0, false, now)
				case 5:
					c.state, c.at = "waiting", 0
					b.settled(c.t, fdipc.Refused, ReasonClosed, false, now)
				case 6:
					c.state, c.at = "waiting", 0
					b.settled(c.t, fdipc.Returned, 0, false, now)
				case 7:
					c.state = "reset"
					b.settled(c.t, fdipc.Refused, fdipc.ReasonNoFiles, true, now)
				case 8:
					c.state, c.at = "waiting", 0
					b.unsent(c.t, n&1 == 1, now)
				}
			case 9, 10: // a worker comes
				if len(alive) < 5 {
					last++
					a := b.addWorker(Worker{ID: last, Slot: n})
					a.credit = 1 + n
					b.join(a, 1, 0)
					alive = append(alive, last)
				}
			case 11: // a worker dies
				if len(alive) > 0 {
					i := n % len(alive)
					b.removeWorker(b.workers[alive[i]])
					m.dead[alive[i]] = true
					alive = slices.Delete(alive, i, i+1)
				}
			case 12: // joins again, or leaves
				if len(alive) > 0 {
					a := b.workers[alive[n%len(alive)]]
					if n > 7 {
						b.leave(a.seats[1])
					} else {
						b.join(a, 1, 0)
					}
				}
			case 13: // ends some
				if len(alive) > 0 {
					id := alive[n%len(alive)]
					if m.count("claimed", id) > m.fin[id] {
						m.fin[id]++
						b.finished(b.workers[id], 1, uint64(m.fin[id]))
					}
				}
			case 14: // time passes
				now = now.Add(time.Duration(n) * 20 * time.Millisecond)
				b.wake(now)
			case 15:
				if tk := b.drop(l); tk != nil {
					byTicket[tk].state = "dropped"
				}
			}
			place()
			check(t, b, l, m, limits)
		}
	})
}

func check(t *testing.T, b *books, l *ledger, m *model, limits Limits) {
	t.Helper()
	c := l.counts
	if !c.Balanced() || int(c.Accepted) != len(m.conns) || c.Waiting != m.count("waiting", 0) ||
		c.Offered != m.count("offered", 0) || int(c.Claimed) != m.count("claimed", 0) ||
		int(c.Reset) != m.count("reset", 0) || int(c.Dropped) != m.count("dropped", 0) {
		t.Fatalf("counts %+v do not fit the model", c)
	}
	room, load := 0, c.Waiting
	for id, s := range l.seats {
		if s.counts.Offered != m.count("offered", id) || int(s.counts.Claimed) != m.count("claimed", id) || !s.counts.Balanced() {
			t.Fatalf("worker %d: counts %+v do not fit the model", id, s.counts)
		}
		if s.counts.Offered > limits.Window || s.a.offered > s.a.credit || limits.PerWorker > 0 && s.load() > limits.PerWorker {
			t.Fatalf("worker %d has too many: %+v", id, s.counts)
		}
		if s.room > 0 && (!s.joined || !s.a.until.IsZero()) {
			t.Fatalf("worker %d has room %d though it takes no part", id, s.room)
		}
		room += s.room
		load += s.load()
	}
	for id := range m.dead {
		load += m.count("offered", id)
		if b.workers[id] != nil {
			t.Fatalf("worker %d is dead and known", id)
		}
	}
	if room != l.room || load != l.load {
		t.Fatalf("room %d, want %d; load %d, want %d", l.room, room, l.load, load)
	}
	if c.Waiting > 0 && room > 0 {
		t.Fatalf("%d wait while there is room for %d", c.Waiting, room)
	}
}
