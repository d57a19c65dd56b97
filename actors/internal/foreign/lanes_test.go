package foreign

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/coppice-go/coppice/supervisor"
)

func because(text string) supervisor.Reason {
	return supervisor.Reason{Kind: supervisor.Error, Cause: errors.New(text)}
}

var testReasons = Reasons{because("unreachable"), because("host lost"), because("crossed"), because("suspended")}

// show prints effects as in the tables below.
func show(effects []Effect) string {
	names := map[EffectKind]string{Open: "open", Grant: "grant", Close: "close", Accept: "accept", Decline: "decline", Tell: "tell", Fail: "fail", Forget: "forget", HostChanged: "changed"}
	var out []string
	for _, e := range effects {
		s := names[e.Kind]
		for _, v := range []string{e.Pair.Local, e.Pair.Foreign, e.Host} {
			if v != "" {
				s += " " + v
			}
		}
		if e.Number != 0 {
			s += fmt.Sprint(" #", e.Number)
		}
		if e.Ref != 0 {
			s += fmt.Sprint(" ref ", e.Ref)
		}
		if e.Reason.Cause != nil {
			s += ": " + e.Reason.Cause.Error()
		}
		out = append(out, s)
	}
	return strings.Join(out, "; ")
}

// TestSteps plays one story after another on host a, which has boot a.
func TestSteps(t *testing.T) {
	up := Event{Kind: HostUp, Host: "b", Boot: "b"}
	ask := func(local, far string, lost uint64) Event {
		return Event{Kind: Asked, Pair: Pair{local, far}, Number: lost}
	}
	offer := func(local, far string, ref uint64) Event {
		return Event{Kind: Offered, Pair: Pair{local, far}, Ref: ref}
	}
	killed, noDescriptors := because("killed"), because("no descriptors")
	type step struct {
		ev   Event
		want string
	}
	for name, story := range map[string][]step{
		"asked, opened, ended": {
			{up, "changed b"},
			{ask("a.1", "b.1", 0), "open a.1 b.1 #1"},
			{ask("a.1", "b.1", 0), ""}, // it is on its way
			{Event{Kind: Opened, Number: 1}, "grant a.1 b.1 #1"},
			{Event{Kind: Opened, Number: 1}, ""},
			{ask("a.1", "b.1", 9), ""}, // no such lane was
			{ask("a.2", "b.1", 0), "open a.2 b.1 #2"},
			{Event{Kind: LaneEnded, Pair: Pair{"a.1", "b.1"}, Number: 1, Reason: &killed}, "tell a.1 b.1: killed"},
			{Event{Kind: LaneEnded, Pair: Pair{"a.1", "b.1"}, Number: 1, Reason: &killed}, ""},
			{Event{Kind: Refused, Number: 2, Reason: &killed}, "close #2; tell a.2 b.1: killed"}, // each hears of its own
		},
		"lost, and asked again": {
			{up, "changed b"},
			{ask("a.1", "b.1", 0), "open a.1 b.1 #1"},
			{Event{Kind: Opened, Number: 1}, "grant a.1 b.1 #1"},
			{ask("a.1", "b.1", 1), "open a.1 b.1 #2"},
			{Event{Kind: LaneEnded, Pair: Pair{"a.1", "b.1"}, Number: 1}, ""}, // the one before
			{Event{Kind: Opened, Number: 2}, "grant a.1 b.1 #2"},
			{Event{Kind: LaneEnded, Pair: Pair{"a.1", "b.1"}, Number: 2}, "forget a.1 b.1 #2"},
			{ask("a.1", "b.1", 0), "open a.1 b.1 #3"},
		},
		"unreachable": {
			{ask("a.1", "b.1", 0), "tell a.1 b.1: unreachable"},
			{up, "changed b"},
			{ask("a.1", "b.1", 0), "open a.1 b.1 #1"},
			{ask("a.2", "b.1", 0), "open a.2 b.1 #2"},
			{Event{Kind: Opened, Number: 2}, "grant a.2 b.1 #2"},
			{Event{Kind: HostDown, Boot: "b"}, "close #1; tell a.1 b.1: unreachable; tell a.2 b.1: unreachable; changed b"},
			{ask("a.1", "b.1", 0), "tell a.1 b.1: unreachable"},
			{Event{Kind: Opened, Number: 1}, ""}, // too late
			{up, "changed b"},
			{ask("a.1", "b.1", 0), "open a.1 b.1 #3"},
		},
		"started anew": {
			{up, "changed b"},
			{ask("a.1", "b.1", 0), "open a.1 b.1 #1"},
			{Event{Kind: Opened, Number: 1}, "grant a.1 b.1 #1"},
			{Event{Kind: HostUp, Host: "b", Boot: "b2"}, "tell a.1 b.1: host lost; changed b; changed b"},
			{ask("a.1", "b.1", 0), "tell a.1 b.1: host lost"},
			{Event{Kind: HostDown, Boot: "b"}, ""}, // of the old trunk
			{ask("a.1", "b2.1", 0), "open a.1 b2.1 #2"},
			{Event{Kind: GatewayGone}, "close #2; tell a.1 b2.1: unreachable; changed b"},
			{ask("a.1", "b.1", 0), "tell a.1 b.1: host lost"}, // dead is kept
			{up, "changed b"}, // a new gateway has let it in
			{ask("a.1", "b.1", 0), "open a.1 b.1 #3"},
			{ask("a.1", "b2.1", 0), "tell a.1 b2.1: host lost"},
		},
		"refused": {
			{up, "changed b"},
			{ask("a.1", "b.1", 0), "open a.1 b.1 #1"},
			{Event{Kind: Refused, Number: 1, Reason: &killed}, "close #1; tell a.1 b.1: killed"},
			{ask("a.1", "b.1", 0), "open a.1 b.1 #2"},
			{Event{Kind: Refused, Number: 2, Reason: &noDescriptors, Broken: true}, "close #2; fail a.1 b.1: no descriptors"},
			{ask("a.1", "b.1", 0), "open a.1 b.1 #3"},
			{Event{Kind: Failed, Number: 3, Reason: &noDescriptors}, "close #3; fail a.1 b.1: no descriptors"},
		},
		"offered": {
			{up, "changed b"},
			{offer("a.1", "b.1", 7), "accept a.1 b.1 #1 ref 7"},
			{offer("a.1", "b.1", 8), "accept a.1 b.1 #2 ref 8"}, // it has lost the first
			{Event{Kind: Offered, Pair: Pair{"a.9", "b.1"}, Ref: 9, Reason: &killed}, "decline a.9 b.1 ref 9: killed"},
			{Event{Kind: LocalEnded, Pair: Pair{Local: "a.1"}}, ""},
			{Event{Kind: LaneEnded, Pair: Pair{"a.1", "b.1"}, Number: 2, Reason: &killed}, ""},
		},
		"both ask, the lower goes first": {
			{up, "changed b"},
			{ask("a.1", "b.1", 0), "open a.1 b.1 #1"},
			{offer("a.1", "b.1", 7), "decline a.1 b.1 ref 7: crossed"},
			{Event{Kind: Opened, Number: 1}, "grant a.1 b.1 #1"},
		},
		"both ask, the other is the lower": {
			{up, "changed b"},
			{ask("c.1", "b.1", 0), "open c.1 b.1 #1"},
			{offer("c.1", "b.1", 7), "close #1; accept c.1 b.1 #2 ref 7"},
			{Event{Kind: Refused, Number: 1, Reason: &testReasons.Crossed, Broken: true}, ""},
		},
		"suspended": {
			{up, "changed b"},
			{ask("a.1", "b.1", 0), "open a.1 b.1 #1"},
			{Event{Kind: Suspended}, "close #1; fail a.1 b.1: suspended"},
			{ask("a.1", "b.1", 0), "fail a.1 b.1: suspended"},
			{Event{Kind: Resumed}, ""},
			{ask("a.1", "b.1", 0), "open a.1 b.1 #2"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := New(testReasons)
			for i, s := range story {
				if got := show(l.Step(s.ev)); got != s.want {
					t.Fatalf("step %d: %q, want %q", i, got, s.want)
				}
			}
		})
	}
}

// TestSaved: a state goes along, but for the lanes of the process itself.
func TestSaved(t *testing.T) {
	l := New(testReasons)
	for _, ev := range []Event{
		{Kind: HostUp, Host: "b", Boot: "b"},
		{Kind: HostUp, Host: "b", Boot: "b2"},
		{Kind: Offered, Pair: Pair{"a.0", "b2.1"}},
		{Kind: Offered, Pair: Pair{"a.1", "b2.1"}},
	} {
		l.Step(ev)
	}
	next := New(testReasons)
	next.Restore(l.Save(), "a.0")
	if len(next.Lanes) != 1 || next.Lanes[Pair{"a.1", "b2.1"}].Number != 2 || next.BootOf("b") != "b2" || !slices.Equal(next.Lost, []string{"b"}) {
		t.Errorf("%+v", next)
	}
	if got := show(next.Step(Event{Kind: Asked, Pair: Pair{"a.0", "b2.1"}})); got != "open a.0 b2.1 #3" {
		t.Error(got)
	}
}

// world is two hosts with a gateway each, and all that is on its way between the four, in order for
// each way.
type world struct {
	t     *testing.T
	rnd   *rand.Rand
	hosts [2]*modelHost
	up    bool
	wires [6][]func() // master to gateway and back, for each host; gateway to gateway
	log   []string
}

type modelHost struct {
	w      *world
	at     int
	boot   string
	lanes  *Lanes
	has    map[Pair]uint64 // the lane that each local process has; absent: none, and it does not wait
	waits  map[Pair]bool
	epoch  int // of the trunk
	offers map[uint64]modelOffer
	joins  map[uint64]uint64 // own number -> the number at the other host; of lanes granted or accepted
}

type modelOffer struct {
	number uint64 // of the opener
	epoch  int
}

func (w *world) send(wire int, f func()) { w.wires[wire] = append(w.wires[wire], f) }

func (h *modelHost) other() *modelHost { return h.w.hosts[1-h.at] }

// step runs the driver of a host, as package actors does.
func (h *modelHost) step(ev Event) {
	w := h.w
	toGateway, toMaster, across := 2*h.at, 2*h.at+1, 4+h.at
	for _, e := range h.lanes.Step(ev) {
		w.log = append(w.log, h.boot+" "+show([]Effect{e}))
		switch o := h.other(); e.Kind {
		case Open:
			w.send(toGateway, func() {
				if !w.up {
					w.send(toMaster, func() { h.step(Event{Kind: Refused, Number: e.Number, Reason: &testReasons.Unreachable}) })
					return
				}
				w.send(across, func() {
					ref := uint64(len(o.offers) + 1)
					o.offers[ref] = modelOffer{e.Number, o.epoch}
					w.send(2*o.at+1, func() {
						o.step(Event{Kind: Offered, Pair: Pair{e.Pair.Foreign, e.Pair.Local}, Ref: ref})
					})
				})
			})
		case Grant:
			h.has[e.Pair] = e.Number
			delete(h.waits, e.Pair)
		case Accept:
			h.has[e.Pair] = e.Number
			delete(h.waits, e.Pair)
			of := h.offers[e.Ref]
			h.joins[e.Number] = of.number
			w.send(toGateway, func() {
				if w.up && of.epoch == h.epoch {
					w.send(across, func() {
						o.joins[of.number] = e.Number
						w.send(2*o.at+1, func() { o.step(Event{Kind: Opened, Number: of.number}) })
					})
				}
			})
		case Decline:
			of := h.offers[e.Ref]
			reason := e.Reason
			w.send(toGateway, func() {
				if w.up && of.epoch == h.epoch {
					w.send(across, func() {
						w.send(2*o.at+1, func() {
							o.step(Event{Kind: Refused, Number: of.number, Reason: &reason, Broken: e.Broken})
						})
					})
				}
			})
		case Tell, Fail:
			if e.Kind == Fail && strings.Contains(show([]Effect{e}), "crossed") {
				w.t.Fatalf("a process hears that both have asked:\n%s", strings.Join(w.log, "\n"))
			}
			delete(h.has, e.Pair)
			delete(h.waits, e.Pair)
		case Close, Forget, HostChanged:
		}
	}
}

// TestBothMastersAgree: whatever is asked, lost and, in half of the runs, cut in whatever order,
// when all is still no process waits, and no lane is half open. Without a cut, the end that a
// process has is joined to the one that the process over there has, and none hears that both have
// asked.
func TestBothMastersAgree(t *testing.T) {
	for seed := range uint64(2000) {
		w := &world{t: t, rnd: rand.New(rand.NewPCG(seed, 1))}
		for i := range w.hosts {
			w.hosts[i] = &modelHost{
				w: w, at: i, boot: string(rune('a' + i)), lanes: New(testReasons),
				has: map[Pair]uint64{}, waits: map[Pair]bool{}, offers: map[uint64]modelOffer{}, joins: map[uint64]uint64{},
			}
		}
		turn := func(up bool) {
			w.up = up
			w.wires[4], w.wires[5] = nil, nil
			for i, h := range w.hosts {
				h.epoch++
				ev := Event{Kind: HostDown, Boot: w.hosts[1-i].boot}
				if up {
					ev = Event{Kind: HostUp, Host: w.hosts[1-i].boot, Boot: w.hosts[1-i].boot}
				}
				w.send(2*i+1, func() { h.step(ev) })
			}
		}
		ask := func(h *modelHost) {
			pair := Pair{fmt.Sprint(h.boot, ".", w.rnd.IntN(2)), fmt.Sprint(h.other().boot, ".", w.rnd.IntN(2))}
			if w.rnd.IntN(4) == 0 || h.has[pair] == 0 && !h.waits[pair] { // sometimes it has lost the one it had
				lost := h.has[pair]
				delete(h.has, pair)
				h.waits[pair] = true
				h.step(Event{Kind: Asked, Pair: pair, Number: lost})
			}
		}
		deliver := func() bool {
			var full []int
			for i := range w.wires {
				if len(w.wires[i]) > 0 {
					full = append(full, i)
				}
			}
			if full == nil {
				return false
			}
			i := full[w.rnd.IntN(len(full))]
			f := w.wires[i][0]
			w.wires[i] = w.wires[i][1:]
			f()
			return true
		}
		turn(true)
		for range 60 {
			switch w.rnd.IntN(12) {
			case 0, 1, 2:
				ask(w.hosts[w.rnd.IntN(2)])
			case 3:
				if seed%2 == 1 && w.rnd.IntN(4) == 0 {
					turn(!w.up)
				}
			default:
				deliver()
			}
		}
		for deliver() {
		}
		for _, h := range w.hosts {
			for pair := range h.waits {
				t.Fatalf("seed %d: %v waits for ever:\n%s", seed, pair, strings.Join(w.log, "\n"))
			}
			for pair, lane := range h.lanes.Lanes {
				if lane.Opening {
					t.Fatalf("seed %d: %v is opening for ever:\n%s", seed, pair, strings.Join(w.log, "\n"))
				}
			}
			for pair, number := range h.has {
				// After a cut, an end may be joined to one that is closed: it ends by that.
				far := h.other().has[Pair{pair.Foreign, pair.Local}]
				if seed%2 == 0 && far != 0 && h.joins[number] != far {
					t.Fatalf("seed %d: %v has #%d, joined to #%d; over there it is #%d:\n%s", seed, pair, number, h.joins[number], far, strings.Join(w.log, "\n"))
				}
			}
		}
	}
}
