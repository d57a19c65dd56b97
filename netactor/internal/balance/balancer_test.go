package balance

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/shm"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// desk drives a Balancer by hand, with its own clock.
type desk struct {
	t   testing.TB
	b   *Balancer
	l   *ListenerState
	now time.Time
	at  map[uint64][]*PendingConn // the connections offered to each worker, oldest first
}

func newDesk(t testing.TB, o wire.Opening, workers int) *desk {
	return newDeskWith(t, o, workers, netactor.Functions{})
}

func newDeskWith(t testing.TB, o wire.Opening, workers int, f netactor.Functions) *desk {
	d := &desk{t: t, b: New(), now: time.Unix(1000, 0), at: make(map[uint64][]*PendingConn)}
	d.l = d.b.AddListener(1, o, f)
	for i := range workers {
		d.join(uint64(i + 1))
	}
	return d
}

func (d *desk) join(id uint64) {
	w := d.b.AddWorker(netactor.Worker{ID: id, Slot: int(id) - 1})
	w.Credit = 1000
	d.b.Join(w, 1, 0)
	d.place()
}

func (d *desk) place() (to []uint64) {
	for p := d.b.Place(d.l); p != nil; p = d.b.Place(d.l) {
		id := p.OfferedTo.Worker.Worker.ID
		d.at[id] = append(d.at[id], p)
		to = append(to, id)
	}
	return to
}

// accept adds one connection, and returns the worker that is offered it; 0 if none is.
func (d *desk) accept(peer string) uint64 {
	p := &PendingConn{FD: -1}
	if peer != "" {
		p.Peer = netip.MustParseAddrPort(peer)
	}
	d.b.Accepted(p, d.l)
	if to := d.place(); len(to) == 1 {
		return to[0]
	}
	return 0
}

// settle ends the oldest offer to a worker, and returns the worker that is offered the connection
// next.
func (d *desk) settle(id uint64, o fdipc.Outcome, reason uint8) []uint64 {
	p := d.at[id][0]
	d.at[id] = d.at[id][1:]
	d.b.Settled(p, o, reason, false, d.now)
	return d.place()
}

// first returns the membership of worker 1.
func (d *desk) first() *Membership { return d.b.Workers[1].Memberships[1] }

func (d *desk) run(n int) string {
	var s strings.Builder
	for range n {
		fmt.Fprint(&s, d.accept(""))
	}
	return s.String()
}

func TestBalancerRoundRobin(t *testing.T) {
	t.Run("cyclic while all have room", func(t *testing.T) {
		d := newDesk(t, wire.Opening{}, 3)
		if got := d.run(9); got != "123123123" {
			t.Errorf("order %s", got)
		}
	})
	t.Run("a full worker is passed over and comes in last when freed", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Limits: netactor.Limits{Window: 1}}, 3)
		if got := d.run(3); got != "123" {
			t.Fatalf("order %s", got)
		}
		if n := d.l.CanAccept(); n != 0 {
			t.Fatalf("admits %d with every window used up", n)
		}
		d.settle(2, fdipc.Claimed, 0)
		d.settle(1, fdipc.Claimed, 0)
		if got := d.run(2); got != "21" {
			t.Errorf("least recently freed is 2, then 1; got %s", got)
		}
	})
	t.Run("one unclaimed connection a worker, as in Node, with Window 1", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Limits: netactor.Limits{Window: 1}}, 2)
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

func TestBalancerReoffer(t *testing.T) {
	t.Run("X1 unclaimed at a death goes to another, claimed dies", func(t *testing.T) {
		d := newDesk(t, wire.Opening{}, 2)
		d.run(4)
		d.settle(1, fdipc.Claimed, 0)
		d.b.RemoveWorker(d.b.Workers[1])
		if to := d.settle(1, fdipc.Returned, 0); !slices.Equal(to, []uint64{2}) {
			t.Fatalf("offered to %v, want 2", to)
		}
		if d.l.goneCounts.Died != 1 || d.l.goneCounts.Claimed != 1 || d.l.goneCounts.Returned != 1 || !d.l.goneCounts.Balanced() {
			t.Errorf("counts of the dead: %+v", d.l.goneCounts)
		}
	})
	t.Run("X2 who is out of descriptors is left alone, then tried with one", func(t *testing.T) {
		d := newDesk(t, wire.Opening{}, 2)
		d.run(2)
		if to := d.settle(1, fdipc.Refused, fdipc.ReasonNoFiles); !slices.Equal(to, []uint64{2}) {
			t.Fatalf("offered to %v, want 2", to)
		}
		if got := d.run(3); got != "222" {
			t.Fatalf("offered to %s while 1 is left alone", got)
		}
		next := d.b.EndSuspensions(d.now)
		if want := d.now.Add(firstSuspension); !next.Equal(want) {
			t.Fatalf("wakes at %v, want %v", next, want)
		}
		d.now = next
		d.b.EndSuspensions(d.now)
		if r := d.first().room; r != 1 {
			t.Fatalf("room %d on trial, want 1", r)
		}
		for d.accept("") != 1 {
		}
		d.settle(1, fdipc.Claimed, 0)
		if r := d.first().room; r != netactor.DefaultWindow {
			t.Errorf("room %d after a claim, want the whole window", r)
		}
	})
	t.Run("suspensions double to a limit", func(t *testing.T) {
		d := newDesk(t, wire.Opening{}, 1)
		d.accept("")
		want := firstSuspension
		for range 10 {
			d.settle(1, fdipc.Returned, 0)
			next := d.b.EndSuspensions(d.now)
			if got := next.Sub(d.now); got != want {
				t.Fatalf("suspended for %v, want %v", got, want)
			}
			want = min(2*want, maxSuspension)
			d.now = next
			d.b.EndSuspensions(d.now)
			d.place()
		}
	})
	t.Run("who says that it has closed is offered no more until it joins", func(t *testing.T) {
		d := newDesk(t, wire.Opening{}, 2)
		d.run(2)
		d.settle(1, fdipc.Refused, wire.ReasonClosed)
		if got := d.run(3); got != "222" {
			t.Fatalf("offered to %s", got)
		}
		d.join(1)
		if got := d.run(2); !strings.Contains(got, "1") {
			t.Errorf("offered to %s after it joined again", got)
		}
	})
	t.Run("X3 with nobody there it waits for the next to join", func(t *testing.T) {
		d := newDesk(t, wire.Opening{}, 1)
		d.accept("")
		d.b.RemoveWorker(d.b.Workers[1])
		if to := d.settle(1, fdipc.Returned, 0); to != nil {
			t.Fatalf("offered to %v", to)
		}
		if n := d.l.CanAccept(); n != 0 {
			t.Fatalf("admits %d with nobody there", n)
		}
		d.join(2)
		if len(d.at[2]) != 1 {
			t.Errorf("the next worker was not offered it")
		}
	})
	t.Run("a reset client is counted and done with", func(t *testing.T) {
		d := newDesk(t, wire.Opening{}, 1)
		d.accept("")
		d.b.Settled(d.at[1][0], fdipc.Returned, 0, true, d.now)
		if c := d.l.Counts; c.Reset != 1 || !c.Balanced() || d.l.Load != 0 {
			t.Errorf("counts %+v, load %d", c, d.l.Load)
		}
	})
	t.Run("a broken link takes the worker off all listeners", func(t *testing.T) {
		d := newDesk(t, wire.Opening{}, 2)
		d.run(2)
		d.b.Unsent(d.at[1][0], true, d.now)
		if to := d.place(); !slices.Equal(to, []uint64{2}) || d.first().joined {
			t.Errorf("offered to %v, joined %v", to, d.first().joined)
		}
	})
}

func TestBalancerLimits(t *testing.T) {
	t.Run("X9 every worker at its limit: nothing is accepted until one ends", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Limits: netactor.Limits{PerWorker: 2}}, 2)
		d.run(4)
		for range 2 {
			d.settle(1, fdipc.Claimed, 0)
			d.settle(2, fdipc.Claimed, 0)
		}
		if n := d.l.CanAccept(); n != 0 {
			t.Fatalf("admits %d at the limit", n)
		}
		d.b.Finished(d.b.Workers[2], 1, 1)
		if n := d.l.CanAccept(); n != 1 {
			t.Fatalf("admits %d after one ended", n)
		}
		if id := d.accept(""); id != 2 {
			t.Errorf("offered to %d, want 2", id)
		}
	})
	t.Run("total over all workers", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Limits: netactor.Limits{Total: 3}}, 2)
		for range 3 {
			if d.l.CanAccept() == 0 {
				t.Fatal("admits none below the total")
			}
			d.settle(d.accept(""), fdipc.Claimed, 0)
		}
		if n := d.l.CanAccept(); n != 0 {
			t.Errorf("admits %d at the total", n)
		}
	})
	t.Run("paused admits none", func(t *testing.T) {
		d := newDesk(t, wire.Opening{}, 1)
		d.l.Paused = true
		if n := d.l.CanAccept(); n != 0 {
			t.Errorf("admits %d", n)
		}
	})
	t.Run("an end may be heard of before the claim", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Limits: netactor.Limits{PerWorker: 1}}, 1)
		d.accept("")
		d.b.Finished(d.b.Workers[1], 1, 1)
		d.settle(1, fdipc.Claimed, 0)
		if m := d.first(); m.load() != 0 || m.Counts.Open() != 0 {
			t.Errorf("load %d, open %d", m.load(), m.Counts.Open())
		}
	})
	t.Run("a worker cannot end what it does not have", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Limits: netactor.Limits{PerWorker: 1}}, 1)
		d.accept("")
		for _, n := range []uint64{2, 1 << 63, ^uint64(0)} {
			d.b.Finished(d.b.Workers[1], 1, n)
		}
		d.b.Finished(d.b.Workers[1], 99, 1)
		if m := d.first(); m.load() != 1 {
			t.Errorf("load %d, want 1", m.load())
		}
	})
	t.Run("a worker cannot join without end", func(t *testing.T) {
		d := newDesk(t, wire.Opening{}, 0)
		w := d.b.AddWorker(netactor.Worker{ID: 9})
		for i := range maxMemberships {
			if !d.b.Join(w, uint64(i+1), 0) {
				t.Fatalf("join %d refused", i)
			}
		}
		if d.b.Join(w, maxMemberships+1, 0) {
			t.Error("one too many is let in")
		}
	})
	t.Run("join before the listener is known", func(t *testing.T) {
		b := New()
		w := b.AddWorker(netactor.Worker{ID: 1})
		b.Join(w, 7, 3)
		l := b.AddListener(7, wire.Opening{}, netactor.Functions{})
		if l.JoinedCount() != 1 || l.Load != 3 || l.CanAccept() == 0 {
			t.Errorf("joined %d, load %d, admits %d", l.JoinedCount(), l.Load, l.CanAccept())
		}
	})
	t.Run("an end before the listener is known", func(t *testing.T) {
		b := New()
		w := b.AddWorker(netactor.Worker{ID: 1})
		b.Join(w, 7, 1)
		b.Finished(w, 7, 1)
		l := b.AddListener(7, wire.Opening{Limits: netactor.Limits{PerWorker: 1}}, netactor.Functions{})
		if l.Load != 0 || l.CanAccept() != 1 {
			t.Errorf("load %d, admits %d", l.Load, l.CanAccept())
		}
	})
}

func TestBalancerTurnAway(t *testing.T) {
	t.Run("at the total", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Limits: netactor.Limits{Total: 2, AtLimit: netactor.CloseAtLimit}}, 2)
		if by := d.l.LimitReached(); by != LimitNone {
			t.Fatalf("turns away by %d below the limit", by)
		}
		d.run(2)
		if by := d.l.LimitReached(); by != limitTotal {
			t.Fatalf("turns away by %d at the total", by)
		}
		d.l.CountTurnedAway(limitTotal)
		if c := d.l.Counts; c.AtTotal != 1 || c.TurnedAway() != 1 || !c.Balanced() {
			t.Errorf("counts %+v", c)
		}
	})
	t.Run("when every worker is at its limit, and not before", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Limits: netactor.Limits{PerWorker: 1, AtLimit: netactor.CloseAtLimit}}, 2)
		d.accept("")
		if by := d.l.LimitReached(); by != LimitNone {
			t.Fatalf("turns away by %d with room at one", by)
		}
		d.accept("")
		if by := d.l.LimitReached(); by != limitPerWorker {
			t.Fatalf("turns away by %d", by)
		}
		d.settle(1, fdipc.Claimed, 0)
		d.b.Finished(d.b.Workers[1], 1, 1)
		if by := d.l.LimitReached(); by != LimitNone {
			t.Errorf("turns away by %d after one ended", by)
		}
	})
	t.Run("who is left alone is not asked: the others' limit decides", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Limits: netactor.Limits{PerWorker: 2, AtLimit: netactor.CloseAtLimit}}, 2)
		d.run(3)
		d.settle(2, fdipc.Refused, fdipc.ReasonNoFiles) // goes to 1, which is full now
		if by := d.l.LimitReached(); by != limitPerWorker {
			t.Errorf("turns away by %d", by)
		}
	})
	t.Run("it waits with no worker able, and while paused", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Limits: netactor.Limits{PerWorker: 1, AtLimit: netactor.CloseAtLimit}}, 1)
		d.accept("")
		d.settle(1, fdipc.Returned, 0)
		if by := d.l.LimitReached(); by != LimitNone {
			t.Errorf("turns away by %d while the only worker stalls", by)
		}
		d.b.RemoveWorker(d.b.Workers[1])
		if by := d.l.LimitReached(); by != LimitNone {
			t.Errorf("turns away by %d with nobody there", by)
		}
		d.join(2)
		d.l.Paused = true
		if by := d.l.LimitReached(); by != LimitNone {
			t.Errorf("turns away by %d while paused", by)
		}
	})
}

// Died counts the connections that were open when a worker died: its page of counters has those
// that it closed, whatever it had reported, and whether the claims were known or not.
func TestBalancerDied(t *testing.T) {
	for _, tt := range []struct {
		name                     string
		reported, sheet          uint64
		wantFinished, wantDied   uint64
		claimsAfter              int
		finishedAfter, diedAfter uint64
	}{
		{"all reported", 2, 2, 2, 1, 0, 2, 1},
		{"the last ends not reported", 0, 2, 2, 1, 0, 2, 1},
		{"claimed, closed and killed before the claim was heard of", 0, 4, 3, 0, 2, 4, 1},
		{"a page that says too much", 0, 1 << 60, 3, 0, 2, 5, 0},
		{"a page that says less than was reported", 2, 0, 2, 1, 0, 2, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t, wire.Opening{}, 1)
			d.run(5)
			for range 3 {
				d.settle(1, fdipc.Claimed, 0)
			}
			m := d.first()
			m.Counters = shm.CountersAt(make([]byte, shm.CountersBytes))
			m.Counters.Words[shm.CountersClosed].Store(tt.sheet)
			d.b.Finished(m.Worker, 1, tt.reported)
			d.b.RemoveWorker(m.Worker)
			if c := m.Counts; c.Finished != tt.wantFinished || c.Died != tt.wantDied {
				t.Fatalf("%+v", c)
			}
			for range tt.claimsAfter {
				d.settle(1, fdipc.Claimed, 0)
			}
			for len(d.at[1]) > 0 {
				d.settle(1, fdipc.Returned, 0)
			}
			if c := d.l.goneCounts; c.Finished != tt.finishedAfter || c.Died != tt.diedAfter || c.Open() != 0 || !c.Balanced() {
				t.Errorf("in the end %+v", c)
			}
			if d.l.Load != d.l.Counts.Waiting {
				t.Errorf("load %d", d.l.Load)
			}
		})
	}
}

// A worker that joins over another link counts its ends from zero: it reports how many connections
// it has open, which cannot take back an earlier report.
func TestBalancerLinkRenewed(t *testing.T) {
	for _, tt := range []struct {
		name           string
		reported, open uint64 // before the new link; at its join
		then           uint64 // reported by the new link
		finished, load int
	}{
		{"nothing has ended", 0, 3, 0, 0, 3},
		{"some had ended and were reported", 2, 1, 0, 2, 1},
		{"some have ended meanwhile", 1, 1, 0, 2, 1},
		{"and go on to end", 1, 2, 2, 3, 0},
		{"all have ended", 0, 0, 0, 3, 0},
		{"it says more than it had", 2, 1 << 60, 0, 2, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t, wire.Opening{Policy: netactor.LeastLoaded}, 1)
			d.run(3)
			for range 3 {
				d.settle(1, fdipc.Claimed, 0)
			}
			m := d.first()
			d.b.Finished(m.Worker, 1, tt.reported)
			d.b.LinkEnded(m.Worker)
			if m.joined || d.l.JoinedCount() != 0 {
				t.Error("it takes part without a link")
			}
			d.b.Join(m.Worker, 1, tt.open)
			d.b.Finished(m.Worker, 1, tt.then)
			if !m.joined || int(m.Counts.Finished) != tt.finished || d.l.Load != tt.load || m.load() != tt.load {
				t.Errorf("load %d, %+v", d.l.Load, m.Counts)
			}
		})
	}
}

func TestBalancerPolicies(t *testing.T) {
	t.Run("least loaded by a worker's own word", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Policy: netactor.LeastLoaded}, 2)
		d.b.SetLoad(d.b.Workers[1], 3)
		d.b.SetLoad(d.b.Workers[2], 0)
		if got := d.run(7); got != "2221212" {
			t.Errorf("offered to %s", got)
		}
		d.b.SetLoad(d.b.Workers[1], 0)
		if got := d.run(3); got != "111" {
			t.Errorf("offered to %s after a new report", got)
		}
		for range 3 {
			d.settle(2, fdipc.Claimed, 0)
		}
		d.b.Finished(d.b.Workers[2], 1, 3)
		if got := d.run(1); got != "2" {
			t.Errorf("offered to %s after three of 2 ended", got)
		}
	})
	t.Run("hash by a function of the addresses", func(t *testing.T) {
		d := newDeskWith(t, wire.Opening{Policy: netactor.Hash}, 4, netactor.Functions{Key: func(peer, local netip.AddrPort) uint64 {
			if peer.Port() == 13 {
				panic("on purpose")
			}
			return uint64(peer.Port())
		}})
		home := d.accept("10.0.0.1:80")
		for i := range 20 {
			if got := d.accept(fmt.Sprintf("10.0.1.%d:80", i)); got != home {
				t.Fatalf("offered to %d, want %d as all of that key", got, home)
			}
		}
		if got := d.accept("10.0.0.1:13"); got == 0 || d.l.Counts.Faults != 1 {
			t.Errorf("a function that panics: offered to %d, %+v", got, d.l.Counts)
		}
	})
	t.Run("hash finds room among a thousand that have none", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Policy: netactor.Hash, Limits: netactor.Limits{Window: 1}}, 1000)
		seen := make(map[uint64]bool)
		for i := range 1000 {
			id := d.accept(fmt.Sprintf("10.0.0.1:%d", i+1))
			if id == 0 || seen[id] {
				t.Fatalf("connection %d: offered to %d", i, id)
			}
			seen[id] = true
		}
	})
	t.Run("least loaded", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Policy: netactor.LeastLoaded}, 3)
		for _, want := range []uint64{1, 2, 3} { // all equal: the longest ago
			if got := d.accept(""); got != want {
				t.Fatalf("offered to %d, want %d", got, want)
			}
			d.settle(want, fdipc.Claimed, 0)
		}
		d.b.Finished(d.b.Workers[2], 1, 1)
		if got := d.accept(""); got != 2 {
			t.Errorf("offered to %d, want 2, which has none", got)
		}
	})
	t.Run("hash keeps a client with its slot, over a death and a replacement", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Policy: netactor.Hash}, 4)
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
		d.b.RemoveWorker(d.b.Workers[2])
		w := d.b.AddWorker(netactor.Worker{ID: 5, Slot: 1}) // takes over slot 1
		w.Credit = 1000
		d.b.Join(w, 1, 0)
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
		d := newDesk(t, wire.Opening{Policy: netactor.Hash, Limits: netactor.Limits{Window: 1}}, 2)
		a, b := d.accept("10.0.0.1:1"), d.accept("10.0.0.1:2")
		if a == 0 || b == 0 || a == b {
			t.Errorf("offered to %d and %d", a, b)
		}
	})
	t.Run("custom", func(t *testing.T) {
		last := pickFunc(func(p netip.AddrPort, free []netactor.Load) int {
			switch p.Port() {
			case 7:
				return 99
			case 8:
				panic("on purpose")
			}
			best := 0
			for i, w := range free {
				if w.Worker.ID > free[best].Worker.ID {
					best = i
				}
			}
			return best
		})
		d := newDeskWith(t, wire.Opening{Policy: netactor.Custom}, 3, netactor.Functions{Picker: last})
		if got := d.accept("10.0.0.1:1"); got != 3 {
			t.Errorf("offered to %d, want 3", got)
		}
		for i, peer := range []string{"10.0.0.1:7", "10.0.0.1:8", "10.0.0.1:8"} {
			if got := d.accept(peer); got == 0 {
				t.Errorf("%s: offered to nobody", peer)
			}
			if n := d.l.Counts.Faults; n != uint64(i+1) {
				t.Errorf("%s: %d faults", peer, n)
			}
		}
		if d.l.Fault != "on purpose" {
			t.Errorf("fault %q", d.l.Fault)
		}
		if got := d.accept("10.0.0.1:1"); got != 3 {
			t.Errorf("offered to %d after the faults, want 3", got)
		}
	})
}

type pickFunc func(netip.AddrPort, []netactor.Load) int

func (f pickFunc) Pick(p netip.AddrPort, free []netactor.Load) int { return f(p, free) }

// model is the same rules again, slow and obvious: it keeps every connection and every offer, and
// counts.
type model struct {
	conns []*modelConn
	fin   map[uint64]int // ends reported by each worker
	dead  map[uint64]bool
}

type modelConn struct {
	state string // waiting, offered, claimed, reset, dropped; parked, left
	given bool   // by a worker, and not accepted
	at    uint64
	t     *PendingConn
}

func (m *model) count(state string, at uint64) (n int) {
	for _, c := range m.conns {
		if c.state == state && (at == 0 || c.at == at) {
			n++
		}
	}
	return n
}

// FuzzBalancer reads bytes as events and compares the balancer with the model after each: nothing
// is lost, no connection is with two workers, no worker has more than its window or its limit, and
// nothing waits while a worker has room.
func FuzzBalancer(f *testing.F) {
	f.Add(uint8(0), []byte{0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 0x10, 0x21, 0x32, 0x43})
	f.Add(uint8(1), []byte{0, 0x40, 0, 0x41, 0, 1, 0x11, 2, 0x50, 0, 0x60, 3, 0x12})
	f.Add(uint8(1), []byte{0, 9, 9, 0, 0x8f, 0x8f, 0xcf, 3, 0x9f, 0xef, 0xcf, 4, 11})
	f.Add(uint8(2), []byte("accept, claim, refuse, die and come back"))
	f.Fuzz(func(t *testing.T, p uint8, events []byte) {
		events = events[:min(len(events), 400)] // the model is quadratic
		limits := netactor.Limits{Window: 1 + int(p>>4&3), PerWorker: int(p >> 6)}
		b := New()
		l := b.AddListener(1, wire.Opening{Policy: netactor.Policy(p % 4), Limits: limits}, netactor.Functions{Picker: pickFunc(func(_ netip.AddrPort, free []netactor.Load) int { return len(free) / 2 })})
		m := &model{fin: make(map[uint64]int), dead: make(map[uint64]bool)}
		now := time.Unix(0, 0)
		last := uint64(0)
		byTicket := make(map[*PendingConn]*modelConn)
		var alive []uint64
		place := func() {
			for tk := b.Place(l); tk != nil; tk = b.Place(l) {
				c := byTicket[tk]
				if c.state == "offered" {
					t.Fatal("offered to two")
				}
				if c.state != "waiting" {
					t.Fatalf("placed a connection that is %s", c.state)
				}
				c.state, c.at = "offered", tk.OfferedTo.Worker.Worker.ID
			}
		}
		for _, e := range events {
			n := int(e >> 4)
			switch e & 15 {
			case 0, 1, 2: // a connection comes
				if l.CanAccept() == 0 {
					break
				}
				c := &modelConn{state: "waiting", t: &PendingConn{FD: -1}}
				c.t.Peer = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(n)}), 1)
				byTicket[c.t] = c
				m.conns = append(m.conns, c)
				b.Accepted(c.t, l)
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
					b.Settled(c.t, fdipc.Claimed, 0, false, now)
				case 5:
					c.state, c.at = "waiting", 0
					b.Settled(c.t, fdipc.Refused, wire.ReasonClosed, false, now)
				case 6:
					c.state, c.at = "waiting", 0
					b.Settled(c.t, fdipc.Returned, 0, false, now)
				case 7:
					c.state = "reset"
					b.Settled(c.t, fdipc.Refused, fdipc.ReasonNoFiles, true, now)
				case 8:
					c.state, c.at = "waiting", 0
					b.Unsent(c.t, n&1 == 1, now)
				}
			case 9, 10: // a worker comes
				if len(alive) < 5 {
					last++
					w := b.AddWorker(netactor.Worker{ID: last, Slot: n})
					w.Credit = 1 + n
					b.Join(w, 1, 0)
					alive = append(alive, last)
				}
			case 11: // a worker dies
				if len(alive) > 0 {
					i := n % len(alive)
					b.RemoveWorker(b.Workers[alive[i]])
					m.dead[alive[i]] = true
					alive = slices.Delete(alive, i, i+1)
				}
			case 12: // joins again, or leaves
				if len(alive) > 0 {
					w := b.Workers[alive[n%len(alive)]]
					if n > 7 {
						b.Leave(w.Memberships[1])
					} else {
						b.Join(w, 1, 0)
					}
				}
			case 13: // ends some
				if len(alive) > 0 {
					id := alive[n%len(alive)]
					if m.count("claimed", id) > m.fin[id] {
						m.fin[id]++
						b.Finished(b.Workers[id], 1, uint64(m.fin[id]))
					}
				}
			case 14: // time passes
				now = now.Add(time.Duration(n) * 20 * time.Millisecond)
				b.EndSuspensions(now)
			case 15:
				var parked *modelConn
				for _, c := range m.conns {
					if c.state == "parked" {
						parked = c
					}
				}
				switch {
				case n < 8:
					if tk := b.DropWaiting(l); tk != nil {
						byTicket[tk].state = "dropped"
					}
				case n < 12: // a worker gives one back
					c := &modelConn{state: "parked", given: true, t: &PendingConn{FD: -1}}
					byTicket[c.t] = c
					m.conns = append(m.conns, c)
					b.Park(c.t, l)
				case parked == nil:
				case n < 14: // its client sends something
					parked.state = "waiting"
					b.Resume(parked.t)
				default: // its client leaves
					parked.state = "left"
					b.DropParked(parked.t, &l.Counts.ParkedLeft)
				}
			}
			place()
			check(t, b, l, m, limits)
		}
	})
}

func check(t *testing.T, b *Balancer, l *ListenerState, m *model, limits netactor.Limits) {
	t.Helper()
	c := l.Counts
	given := 0
	for _, conn := range m.conns {
		given += delta(false, conn.given)
	}
	if !c.Balanced() || int(c.Accepted) != len(m.conns)-given || int(c.GivenBack) != given || c.Parked != m.count("parked", 0) || c.Waiting != m.count("waiting", 0) ||
		c.Offered != m.count("offered", 0) || int(c.Claimed) != m.count("claimed", 0) ||
		int(c.Reset) != m.count("reset", 0) || int(c.Dropped) != m.count("dropped", 0) {
		t.Fatalf("counts %+v do not fit the model", c)
	}
	room, load := 0, c.Waiting+c.Parked
	taking, able, sated := 0, 0, 0
	for id, s := range l.Members {
		taking += delta(false, s.joined)
		able += delta(false, s.joined && s.Worker.SuspendedUntil.IsZero())
		sated += delta(false, s.joined && s.Worker.SuspendedUntil.IsZero() && limits.PerWorker > 0 && s.load() >= limits.PerWorker)
		if (s.Counts.Offered > 0) != slices.Contains(l.Busy, s) {
			t.Fatalf("worker %d: offered %d, and busy is %v", id, s.Counts.Offered, l.Busy)
		}
		if s.Counts.Offered != m.count("offered", id) || int(s.Counts.Claimed) != m.count("claimed", id) || !s.Counts.Balanced() {
			t.Fatalf("worker %d: counts %+v do not fit the model", id, s.Counts)
		}
		if s.Counts.Offered > limits.Window || s.Worker.offered > s.Worker.Credit || limits.PerWorker > 0 && s.load() > limits.PerWorker {
			t.Fatalf("worker %d has too many: %+v", id, s.Counts)
		}
		if s.room > 0 && (!s.joined || !s.Worker.SuspendedUntil.IsZero()) {
			t.Fatalf("worker %d has room %d though it takes no part", id, s.room)
		}
		room += s.room
		load += s.load()
	}
	for id := range m.dead {
		load += m.count("offered", id)
		if b.Workers[id] != nil {
			t.Fatalf("worker %d is dead and known", id)
		}
	}
	if room != l.room || load != l.Load {
		t.Fatalf("room %d, want %d; load %d, want %d", l.room, room, l.Load, load)
	}
	if taking != l.accepting || able != l.available || sated != l.atLimit {
		t.Fatalf("taking part %d, want %d; able %d, want %d; sated %d, want %d", l.accepting, taking, l.available, able, l.atLimit, sated)
	}
	if c.Waiting > 0 && room > 0 {
		t.Fatalf("%d wait while there is room for %d", c.Waiting, room)
	}
}

// BenchmarkPick: one op is the balancer's work for one connection: accept, place among the workers,
// settle, end. O(log n) or better: a thousand workers cost about as much as ten.
func BenchmarkPick(b *testing.B) {
	picker := pickFunc(func(p netip.AddrPort, free []netactor.Load) int { return int(p.Port()) % len(free) })
	for p := range netactor.Shared {
		for _, workers := range []int{10, 1000} {
			b.Run(fmt.Sprintf("%v/%d", p, workers), func(b *testing.B) {
				d := newDeskWith(b, wire.Opening{Policy: p, Limits: netactor.Limits{Window: netactor.MaxWindow}}, workers, netactor.Functions{Picker: picker})
				b.ReportAllocs()
				t := &PendingConn{FD: -1}
				ends := make([]uint64, workers+1)
				n := uint32(0)
				for b.Loop() {
					n++
					t.Peer = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}), uint16(n))
					d.b.Accepted(t, d.l)
					w := d.b.Place(d.l).OfferedTo.Worker
					d.b.Settled(t, fdipc.Claimed, 0, false, d.now)
					ends[w.Worker.ID]++
					d.b.Finished(w, 1, ends[w.Worker.ID])
				}
			})
		}
	}
}
