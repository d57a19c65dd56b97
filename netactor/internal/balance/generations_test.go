package balance

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/netactor"
	"github.com/coppice-go/coppice/netactor/internal/wire"
)

// joinAs is join for a worker of a pool and a generation.
func (d *desk) joinAs(w netactor.Worker) {
	s := d.b.AddWorker(w)
	s.Credit = 1000
	d.b.Join(s, 1, 0)
	d.place()
}

// TestBalancerGenerations: the newest generation of a pool gets the connections, by each policy's
// rule, and also if one must wait for a moment; if no newest worker takes connections, the older
// ones get them.
func TestBalancerGenerations(t *testing.T) {
	first := netactor.Functions{Picker: pickFunc(func(netip.AddrPort, []netactor.Load) int { return 0 })}
	for _, p := range []netactor.Policy{netactor.RoundRobin, netactor.LeastLoaded, netactor.Hash, netactor.Custom} {
		t.Run(p.String(), func(t *testing.T) {
			d := newDeskWith(t, wire.Opening{Policy: p, Limits: netactor.Limits{Window: 2}}, 0, first)
			from := func(i int) string { return fmt.Sprintf("10.0.0.%d:1", i+1) }
			older := func(what string, got uint64) {
				t.Helper()
				if got != 1 && got != 2 {
					t.Errorf("%s: to %d", what, got)
				}
			}
			for id := range uint64(2) {
				d.joinAs(netactor.Worker{ID: id + 1, Pool: "web", Slot: int(id), Generation: 1})
			}
			older("before the reload", d.accept(from(9)))
			d.joinAs(netactor.Worker{ID: 3, Pool: "web", Slot: 0, Generation: 2})
			for i := range 2 {
				if got := d.accept(from(i)); got != 3 {
					t.Errorf("to %d, not to the newest", got)
				}
			}
			if n := d.l.CanAccept(); n != 0 {
				t.Errorf("%d may be accepted while the newest must claim first", n)
			}
			if got := d.accept(from(3)); got != 0 {
				t.Errorf("to %d while the newest must claim first", got)
			}
			if got := d.settle(3, fdipc.Claimed, 0); len(got) != 1 || got[0] != 3 {
				t.Errorf("one that waited went to %v", got)
			}
			for range 2 { // it does not claim in time
				for _, to := range d.settle(3, fdipc.Returned, 0) {
					older("the newest is suspended", to)
				}
			}
			d.b.EndSuspensions(d.now.Add(time.Hour))
			d.joinAs(netactor.Worker{ID: 4, Pool: "web", Slot: 1, Generation: 2})
			d.b.RemoveWorker(d.b.Workers[3])
			if got := d.accept(from(5)); got != 4 {
				t.Errorf("to %d, not to the second of the newest", got)
			}
			d.b.RemoveWorker(d.b.Workers[4])
			older("the newest are gone", d.accept(from(6)))
		})
	}
	t.Run("on probation", func(t *testing.T) { // as one that listened long before it accepts
		d := newDesk(t, wire.Opening{}, 0)
		d.joinAs(netactor.Worker{ID: 1, Pool: "web", Generation: 1})
		d.joinAs(netactor.Worker{ID: 2, Pool: "web", Generation: 2})
		if got := d.run(2); got != "22" {
			t.Errorf("order %s", got)
		}
		for range 2 {
			if got := d.settle(2, fdipc.Returned, 0); len(got) != 1 || got[0] != 1 {
				t.Errorf("suspended: to %v", got)
			}
		}
		d.b.EndSuspensions(d.now.Add(time.Hour))
		if got := d.run(5); strings.Count(got, "2") != 1 || strings.Count(got, "1") != 4 {
			t.Errorf("one offer tests it: order %s", got)
		}
		d.settle(2, fdipc.Claimed, 0)
		if got := d.run(2); got != "22" {
			t.Errorf("after its claim: order %s", got)
		}
	})
	t.Run("at the limit", func(t *testing.T) {
		d := newDesk(t, wire.Opening{Limits: netactor.Limits{PerWorker: 1}}, 0)
		d.joinAs(netactor.Worker{ID: 1, Pool: "web", Generation: 1})
		d.joinAs(netactor.Worker{ID: 2, Pool: "web", Generation: 2})
		if got := d.run(3); got != "210" {
			t.Errorf("order %s", got)
		}
	})
	t.Run("of each pool", func(t *testing.T) {
		d := newDesk(t, wire.Opening{}, 0)
		d.joinAs(netactor.Worker{ID: 1, Pool: "a", Generation: 1})
		d.joinAs(netactor.Worker{ID: 2, Pool: "b", Generation: 1})
		d.joinAs(netactor.Worker{ID: 3, Pool: "a", Generation: 2})
		if got := d.run(4); got != "2323" {
			t.Errorf("order %s", got)
		}
	})
}

// TestBalancerBeside: generations that serve beside each other get their turns.
func TestBalancerBeside(t *testing.T) {
	d := newDesk(t, wire.Opening{Policy: netactor.RoundRobin}, 0)
	for id := range uint64(3) {
		d.joinAs(netactor.Worker{ID: id + 1, Pool: "web", Slot: int(id), Generation: 1 + int(id)/2, Beside: true})
	}
	got := map[uint64]int{}
	for i := range 6 {
		got[d.accept(fmt.Sprintf("10.0.0.%d:1", i+1))]++
	}
	if len(got) != 3 || got[3] != 2 {
		t.Errorf("the workers got %v", got)
	}
}
