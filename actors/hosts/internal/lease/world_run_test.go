package lease_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/coppice-go/coppice/actors/hosts/internal/lease"
)

// play runs a world of three hosts that want four names for a while, under faults, then without; at
// the end every host closes. It returns what was wrong, the world's log included.
func play(seed uint64, m mutant) (*world, string) {
	const faults, calm = 60 * time.Second, 20 * time.Second
	w := newWorld(seed, 3, m)
	names := []string{"a", "b", "c", "d"}
	w.look()
	for i := range w.hosts {
		var nag, nemesis func()
		nag = func() {
			if h := w.hosts[i]; !h.frozen {
				h.wish(names[w.rand.IntN(len(names))])
			}
			w.after(50*time.Millisecond+w.upTo(time.Second), nag)
		}
		nag()
		nemesis = func() {
			h := w.hosts[i]
			if w.calm {
				return
			}
			switch w.rand.IntN(5) {
			case 0, 1:
				h.cut = true
				w.after(w.upTo(2*ttl), func() { h.cut = false })
			case 2:
				h.freeze(w.upTo(2 * ttl))
			case 3: // by another hand
				if e := w.entries["name/"+names[w.rand.IntN(len(names))]]; e != nil && w.chance(0.3) {
					w.byHand[e.created] = true
					w.remove("name/" + e.name)
				}
			case 4:
				if w.chance(0.3) {
					w.restart(i)
				}
			}
			w.after(w.upTo(2*ttl), nemesis)
		}
		w.after(w.upTo(2*ttl), nemesis)
	}
	w.run(faults)
	w.calm = true
	for _, h := range w.hosts {
		h.cut = false
	}
	w.run(faults + calm)
	before := w.owned
	w.run(faults + 2*calm)
	for _, h := range w.hosts {
		if !h.live && w.failed == "" {
			w.fail("host %d has no session in a whole world", h.number)
		}
	}
	if w.owned == before {
		w.fail("nobody gets a name in a whole world")
	}
	for _, h := range w.hosts {
		h.hear(lease.Event{Kind: lease.Close})
	}
	w.run(faults + 2*calm + ttl)
	for _, h := range w.hosts {
		if !h.over {
			w.fail("host %d has not ended", h.number)
		}
	}
	for key, e := range w.entries {
		w.fail("%s is left: %+v", key, *e)
	}
	if w.failed != "" {
		last := w.log[max(0, len(w.log)-60):]
		return w, w.failed + "\n" + strings.Join(last, "\n")
	}
	return w, ""
}

// look fails if a host keeps a name for long that it does not use: nobody else gets it.
func (w *world) look() {
	for _, e := range w.entries {
		if u := w.hosts[e.host].using[e.name]; e.name == "" || u != nil && u.fence == e.created {
			continue
		}
		if w.unused[e.created]++; w.unused[e.created] == 15 {
			w.fail("%s made by %d is used by nobody", e.name, e.created)
		}
	}
	w.after(time.Second, w.look)
}

// restart kills a host, and starts it anew: half of the times on the same machine, where the lease
// of the one before is known.
func (w *world) restart(i int) {
	old := w.hosts[i]
	w.say("host %d is killed", i)
	old.over, old.frozen = true, true
	for _, u := range old.using {
		u.acting = false
	}
	before := int64(0)
	if e := w.entries["host/"+string(rune('0'+i))]; e != nil && w.chance(0.5) {
		before = e.lease
	}
	w.hosts[i] = w.newHost(i, old.boot[:len(old.boot)-1]+string(old.boot[len(old.boot)-1]+1), before)
}

// TestWorlds: three hosts, four names, and what can go wrong: calls lost, late, done after their
// caller has gone; hosts cut off, frozen, killed and started anew; names deleted by another hand.
// No two act for a name at once but for a moment after a thaw, fences rise, what is guarded is
// written in the order of fences, and when the world is whole all goes on and nothing is left over.
// COPPICE_SOAK=1 plays 50,000 worlds.
func TestWorlds(t *testing.T) {
	worlds := 60
	switch {
	case os.Getenv("COPPICE_SOAK") == "1":
		worlds = 50_000
	case testing.Short():
		worlds = 20
	}
	owned, refused := 0, 0
	for seed := range worlds {
		w, wrong := play(uint64(seed), none)
		if wrong != "" {
			t.Fatalf("seed %d: %s", seed, wrong)
		}
		owned += w.owned
		refused += w.refused
	}
	if owned < worlds || refused == 0 {
		t.Errorf("%d holdings and %d writes refused in %d worlds: too few to show anything", owned, refused, worlds)
	}
	t.Logf("%d worlds, %d holdings, %d writes refused", worlds, owned, refused)
}

// TestMutants: a run notices each rule that is broken. from is the world that begins, so that it is
// over soon.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("plays worlds until one notices")
	}
	for _, row := range []struct {
		name string
		m    mutant
		from uint64
	}{
		{"the watchdog waits for the renewal", watchdogInRenewal, 0},
		{"a lease counts from the answer", countedFromAnswer, 16},
		{"a delete does not compare the revision", deleteByName, 0},
		{"the fence is not compared", fenceNotCompared, 0},
		{"a name is given back before all has ended", goneBeforeStopped, 0},
		{"the clock stands still while it is frozen", clockStandsStill, 0},
		{"a claim does not look for another's entry", claimOverAnother, 0},
		{"a claim does not look for its own session", claimWithoutEntry, 0},
		{"a claim takes any entry of its session for its own", anyToken, 0},
		{"nobody looks for what a late claim has made", lateClaimStays, 60},
	} {
		t.Run(row.name, func(t *testing.T) {
			for seed := row.from; seed < row.from+2000; seed++ {
				if _, wrong := play(seed, row.m); wrong != "" {
					first, _, _ := strings.Cut(wrong, "\n")
					t.Logf("world %d: %s", seed, first)
					return
				}
			}
			t.Error("no run has noticed")
		})
	}
}
