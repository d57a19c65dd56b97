// Package foreign decides about the lanes between the processes of one host and those of others, as
// the master of the host does. It is a state machine without locks, clocks and sockets: Step takes
// what has happened and returns what is to be done, in order.
//
//	        Asked                        Opened
//	(none) ------> opening: one end is ------> open: the process
//	   ^           kept, the gateway           has its end
//	   |           has the other               ^      |
//	   |              | Refused, Failed        |      | LocalEnded, LaneEnded,
//	   +--------------+ LocalEnded, HostDown   |      | HostDown, GatewayGone
//	   |                Offered, if it goes first     |
//	   +----------------------------------- | --------+
//	                 Offered, accepted -----+
//
// A process gets its end when the process at the other host has one too, so that it never writes to
// a lane that leads nowhere. If both ask at the same time, the lane of the lower address goes
// first, and both masters see that by themselves.
//
// What a host knows of another is whether a trunk leads there. While none does, its processes are
// unreachable: whoever waits for them is told so, and nothing is remembered, so that all is as
// before once there is one again. A host that comes back with another boot was started anew: the
// processes of its former boot are lost for ever, and that is remembered.
package foreign

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/coppice-go/coppice/supervisor"
)

// Boot returns the boot in an address boot.id; "" if it has none.
func Boot(address string) string {
	return address[:max(strings.LastIndexByte(address, '.'), 0)]
}

// A Pair is a process of this host and one of another, by their addresses.
type Pair struct{ Local, Foreign string }

// EventKind is what has happened.
type EventKind uint8

// The events, with the fields that they have.
const (
	Asked       EventKind = iota // Pair, Number: Local wants a lane, and has lost that one; 0 = none
	Opened                       // Number, Incarnation: the other host has its half of a lane
	Refused                      // Number, Reason, Broken: the other host, or the gateway, makes no such lane
	Failed                       // Number: the ends of a lane could not be made or given away; Reason
	Offered                      // Pair, Ref, Incarnation: the other host opens a lane; Reason: Local is not there, as that says
	LocalEnded                   // Pair.Local
	LaneEnded                    // Pair, Number: an open lane; Reason: of the end of Foreign, nil if it may live
	HostUp                       // Host, Boot: there is a trunk to it
	HostDown                     // Boot: there is none any more
	GatewayGone                  // there are no trunks any more
	Suspended                    // the master may be replaced: a lane that is opening fails, and no other opens
	Resumed                      // it goes on
)

// An Event is what has happened.
type Event struct {
	Kind        EventKind
	Pair        Pair
	Number      uint64 // of a lane, by this master
	Ref         uint64 // of a lane, by the gateway
	Incarnation uint64 // of Pair.Foreign
	Reason      *supervisor.Reason
	Broken      bool // the process may live: Reason is of the lane
	Host, Boot  string
}

// EffectKind is what is to be done.
type EffectKind uint8

// The effects, with the fields that they have.
const (
	Open        EffectKind = iota // Pair, Number: make two ends, give one to the gateway and keep the other
	Grant                         // Pair, Number, Incarnation: give the kept end to Local
	Close                         // Number: close the kept end
	Accept                        // Pair, Number, Incarnation, Ref: make two ends, for Local and for the gateway
	Decline                       // Pair, Ref, Reason, Broken: tell the gateway that there is no such lane
	Tell                          // Pair, Reason: tell Local that Foreign has ended, or cannot be reached
	Fail                          // Pair, Reason: tell Local that it gets no lane; Foreign may live
	Forget                        // Pair, Number: tell Local that the lane has ended, and that Foreign may live
	HostChanged                   // Host: what is known of its names no longer holds
)

// An Effect is what is to be done.
type Effect struct {
	Kind        EffectKind
	Pair        Pair
	Number      uint64
	Ref         uint64
	Incarnation uint64
	Reason      supervisor.Reason
	Broken      bool
	Host        string
}

// maxLost bounds the boots that are remembered as lost. The processes of an earlier one are
// unreachable.
const maxLost = 1024

// Reasons are those that the machine gives.
type Reasons struct {
	Unreachable supervisor.Reason // no trunk leads to the host
	HostLost    supervisor.Reason // the host was started anew
	Crossed     supervisor.Reason // of a lane: the other process asked at the same time
	Suspended   supervisor.Reason // of a lane
}

// Lanes is the state of a master.
type Lanes struct {
	Reasons Reasons
	Last    uint64               // the number of the newest lane
	Up      map[string]string    // boot -> name, of the hosts that a trunk leads to
	Newest  map[string]string    // name -> the latest boot
	Lost    []string             // boots of hosts that were started anew, oldest first
	Lanes   map[Pair]foreignLane // the newest of each pair

	suspended bool
}

// foreignLane is one that is opening or open.
type foreignLane struct {
	Number  uint64
	Opening bool
}

// New returns the state of a master that knows no other host.
func New(r Reasons) *Lanes {
	return &Lanes{Reasons: r, Up: map[string]string{}, Newest: map[string]string{}, Lanes: map[Pair]foreignLane{}}
}

// Step takes an event.
func (l *Lanes) Step(ev Event) []Effect {
	switch ev.Kind {
	case Asked:
		return l.asked(ev)
	case Opened:
		if pair, ok := l.opening(ev.Number); ok {
			l.Lanes[pair] = foreignLane{Number: ev.Number}
			return []Effect{{Kind: Grant, Pair: pair, Number: ev.Number, Incarnation: ev.Incarnation}}
		}
	case Refused:
		if pair, ok := l.opening(ev.Number); ok {
			delete(l.Lanes, pair)
			kind := Tell
			if ev.Broken {
				kind = Fail
			}
			return []Effect{{Kind: Close, Number: ev.Number}, {Kind: kind, Pair: pair, Reason: *ev.Reason}}
		}
	case Failed:
		for pair, lane := range l.Lanes {
			if lane.Number == ev.Number {
				delete(l.Lanes, pair)
				return []Effect{{Kind: Close, Number: ev.Number}, {Kind: Fail, Pair: pair, Reason: *ev.Reason}}
			}
		}
	case Offered:
		return l.offered(ev)
	case LocalEnded:
		return l.end(func(p Pair) bool { return p.Local == ev.Pair.Local }, nil)
	case LaneEnded:
		if l.Lanes[ev.Pair].Number != ev.Number {
			return nil // of a newer one the end comes too, or that it is refused
		}
		delete(l.Lanes, ev.Pair)
		if ev.Reason == nil {
			return []Effect{{Kind: Forget, Pair: ev.Pair, Number: ev.Number}}
		}
		return []Effect{{Kind: Tell, Pair: ev.Pair, Reason: *ev.Reason}}
	case HostUp:
		return l.hostUp(ev.Host, ev.Boot)
	case HostDown:
		return l.hostDown(ev.Boot, &l.Reasons.Unreachable)
	case GatewayGone:
		var all []Effect
		for _, boot := range slices.Sorted(maps.Keys(l.Up)) {
			all = append(all, l.hostDown(boot, &l.Reasons.Unreachable)...)
		}
		return append(all, l.end(func(Pair) bool { return true }, &l.Reasons.Unreachable)...)
	case Suspended:
		var all []Effect
		for _, pair := range l.pairs(func(p Pair) bool { return l.Lanes[p].Opening }) {
			all = append(all, Effect{Kind: Close, Number: l.Lanes[pair].Number}, Effect{Kind: Fail, Pair: pair, Reason: l.Reasons.Suspended})
			delete(l.Lanes, pair)
		}
		l.suspended = true
		return all
	case Resumed:
		l.suspended = false
	}
	return nil
}

func (l *Lanes) asked(ev Event) []Effect {
	boot := Boot(ev.Pair.Foreign)
	if slices.Contains(l.Lost, boot) {
		return []Effect{{Kind: Tell, Pair: ev.Pair, Reason: l.Reasons.HostLost}}
	}
	if _, up := l.Up[boot]; !up {
		return []Effect{{Kind: Tell, Pair: ev.Pair, Reason: l.Reasons.Unreachable}}
	}
	if l.Lanes[ev.Pair].Number > ev.Number || ev.Number > l.Last {
		return nil // a newer one is on its way; or a number that no lane has had
	}
	if l.suspended {
		return []Effect{{Kind: Fail, Pair: ev.Pair, Reason: l.Reasons.Suspended}}
	}
	l.Last++
	l.Lanes[ev.Pair] = foreignLane{Number: l.Last, Opening: true}
	return []Effect{{Kind: Open, Pair: ev.Pair, Number: l.Last}}
}

func (l *Lanes) offered(ev Event) []Effect {
	if ev.Reason != nil {
		return []Effect{{Kind: Decline, Pair: ev.Pair, Ref: ev.Ref, Reason: *ev.Reason, Broken: ev.Broken}}
	}
	old := l.Lanes[ev.Pair]
	if old.Opening && ev.Pair.Local < ev.Pair.Foreign { // ours goes first: the other master sees that too
		return []Effect{{Kind: Decline, Pair: ev.Pair, Ref: ev.Ref, Reason: l.Reasons.Crossed, Broken: true}}
	}
	var effects []Effect
	if old.Opening {
		effects = append(effects, Effect{Kind: Close, Number: old.Number})
	}
	l.Last++
	l.Lanes[ev.Pair] = foreignLane{Number: l.Last}
	return append(effects, Effect{Kind: Accept, Pair: ev.Pair, Number: l.Last, Incarnation: ev.Incarnation, Ref: ev.Ref})
}

func (l *Lanes) hostUp(host, boot string) (effects []Effect) {
	if old := l.Newest[host]; old != "" && old != boot {
		if l.Lost = append(l.Lost, old); len(l.Lost) > maxLost {
			l.Lost = slices.Delete(l.Lost, 0, 1)
		}
		effects = l.hostDown(old, &l.Reasons.HostLost)
	}
	// A gateway that has started since does not know that it was lost.
	l.Lost = slices.DeleteFunc(l.Lost, func(lost string) bool { return lost == boot })
	l.Newest[host], l.Up[boot] = boot, host
	return append(effects, Effect{Kind: HostChanged, Host: host})
}

func (l *Lanes) hostDown(boot string, why *supervisor.Reason) []Effect {
	host, up := l.Up[boot]
	delete(l.Up, boot)
	effects := l.end(func(p Pair) bool { return Boot(p.Foreign) == boot }, why)
	if up {
		effects = append(effects, Effect{Kind: HostChanged, Host: host})
	}
	return effects
}

// end ends lanes, and tells their processes of this host why, if there is a reason to tell.
func (l *Lanes) end(which func(Pair) bool, why *supervisor.Reason) (effects []Effect) {
	for _, pair := range l.pairs(which) {
		if lane := l.Lanes[pair]; lane.Opening {
			effects = append(effects, Effect{Kind: Close, Number: lane.Number})
		}
		delete(l.Lanes, pair)
		if why != nil {
			effects = append(effects, Effect{Kind: Tell, Pair: pair, Reason: *why})
		}
	}
	return effects
}

// opening returns the pair whose lane with a number is opening.
func (l *Lanes) opening(number uint64) (Pair, bool) {
	for pair, lane := range l.Lanes {
		if lane.Number == number {
			return pair, lane.Opening
		}
	}
	return Pair{}, false
}

// pairs returns the pairs that which selects, in order.
func (l *Lanes) pairs(which func(Pair) bool) (list []Pair) {
	for pair := range l.Lanes {
		if which(pair) {
			list = append(list, pair)
		}
	}
	slices.SortFunc(list, func(a, b Pair) int {
		return cmp.Or(strings.Compare(a.Local, b.Local), strings.Compare(a.Foreign, b.Foreign))
	})
	return list
}

// BootOf returns the boot of a host that a trunk leads to; "" if none does.
func (l *Lanes) BootOf(host string) string {
	if boot := l.Newest[host]; l.Up[boot] == host {
		return boot
	}
	return ""
}

// Saved is the state of a master that is suspended, for the next image of its process.
type Saved struct {
	Last       uint64
	Up, Newest map[string]string
	Lost       []string
	Gateway    string // its address, which is not the machine's
	Pairs      []Pair // their lanes are open
	Numbers    []uint64
}

// Save returns what goes along.
func (l *Lanes) Save() *Saved {
	s := &Saved{Last: l.Last, Up: maps.Clone(l.Up), Newest: maps.Clone(l.Newest), Lost: slices.Clone(l.Lost)}
	for _, pair := range l.pairs(func(p Pair) bool { return !l.Lanes[p].Opening }) {
		s.Pairs, s.Numbers = append(s.Pairs, pair), append(s.Numbers, l.Lanes[pair].Number)
	}
	return s
}

// Restore takes what Save has returned, but for the lanes of the process itself, which have ended.
func (l *Lanes) Restore(s *Saved, self string) {
	l.Last, l.Lost = s.Last, s.Lost
	maps.Copy(l.Up, s.Up)
	maps.Copy(l.Newest, s.Newest)
	for i, pair := range s.Pairs[:min(len(s.Pairs), len(s.Numbers))] {
		if pair.Local != self {
			l.Lanes[pair] = foreignLane{Number: s.Numbers[i]}
		}
	}
}
