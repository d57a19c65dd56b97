package actors

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"

	"github.com/coppice-go/coppice/actors/internal/foreign"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/supervisor"
)

// A lane to a process of another host is in two halves, each a lane like those between siblings,
// that the gateways of the two hosts join (gateway.go). To the child it is a lane like any other:
// it asks its master and gets an end. Package foreign has the rules; this file does what they say.

// Operations of lane frames between the master and the gateway.
const (
	laneOpen     byte = 5  // master: foreign address, number, local address, its incarnation; one handle
	laneAccepted byte = 6  // master: local address, ref, number, its incarnation; one handle
	laneDeclined byte = 7  // master: local address, ref, why
	laneOpened   byte = 8  // gateway: foreign address, number, its incarnation
	laneRefused  byte = 9  // gateway: foreign address, number, why
	laneOffer    byte = 10 // gateway: foreign address, ref, its incarnation, local address
	laneHostUp   byte = 11 // gateway: name of a host, boot
	laneHostDown byte = 12 // gateway: boot
	laneBegin    byte = 13 // master: its own address; you are the gateway
	laneEnded    byte = 14 // gateway: foreign address, number, local address, why the process has ended; nothing: it may live
	laneForget   byte = 15 // master to a child: foreign address, number of a lane that has ended
	laneHolder   byte = 16 // gateway: a name of the cluster, the PID that has it; one without an address: none
	laneHolders  byte = 17 // gateway: nothing, one of the following
	lanePeers    byte = 18 // gateway: nothing, number of hosts, their names
	// laneIdle to laneHint, 19 to 24: lanerest.go
)

// What laneHolders says.
const (
	holdersUnknown  byte = 0
	holdersFollow   byte = 1 // all of them, each by a laneHolder
	holdersComplete byte = 2
)

var (
	unreachable = errorReason(ErrUnreachable)
	hostLost    = errorReason(errors.New("host lost: it was started anew"))
	laneReasons = foreign.Reasons{
		Unreachable: unreachable, HostLost: hostLost,
		Crossed:   errorReason(fmt.Errorf("%w: both have asked", ErrLane)),
		Suspended: errorReason(fmt.Errorf("%w: %w", ErrLane, ErrReplaced)),
	}
)

// isUnreachable reports whether a process may live that is said to have ended for r.
func isUnreachable(r supervisor.Reason) bool {
	return r.Kind == supervisor.Error && r.Cause == ErrUnreachable //nolint:errorlint // it and no other
}

// foreignLanes makes the lanes to other hosts, in their masters.
type foreignLanes struct {
	ps *peers

	mu         sync.Mutex
	rules      *foreign.Lanes
	gateway    string   // the process that carries them; "": there is none now
	hosts      []string // the peers, as the gateway has said; nil: it has not
	effects    []foreign.Effect
	performing bool                     // a goroutine performs them
	kept       map[uint64]*fdipc.Handle // ends of lanes that are opening, by number; of the goroutine that performs
}

func newForeignLanes(ps *peers) *foreignLanes {
	return &foreignLanes{ps: ps, rules: foreign.New(laneReasons), kept: make(map[uint64]*fdipc.Handle)}
}

// isForeign reports whether an address is that of a process of another host. Without a boot of its
// own a tree knows no other host.
func (lp *localProcess) isForeign(address string) bool {
	if lp.boot == "" {
		return false
	}
	boot := foreign.Boot(address)
	return boot != "" && boot != lp.boot
}

// step passes an event to the rules and performs the effects, in order and by one goroutine at a
// time. It waits for no process.
func (l *foreignLanes) step(ev foreign.Event) {
	l.mu.Lock()
	l.effects = append(l.effects, l.rules.Step(ev)...)
	if l.performing {
		l.mu.Unlock()
		return
	}
	l.performing = true
	for len(l.effects) > 0 {
		e := l.effects[0]
		l.effects = l.effects[1:]
		gateway := l.gateway
		l.mu.Unlock()
		failed := l.perform(e, l.ps.find(gateway))
		l.mu.Lock()
		if failed != nil {
			l.effects = append(l.effects, l.rules.Step(*failed)...)
		}
	}
	l.performing = false
	l.mu.Unlock()
}

// perform does what an effect says. It returns what has failed; nil: nothing.
func (l *foreignLanes) perform(e foreign.Effect, gateway *peer) *foreign.Event {
	fail := func(err error) *foreign.Event {
		reason := errorReason(fmt.Errorf("%w: %w", ErrLane, err))
		return &foreign.Event{Kind: foreign.Failed, Number: e.Number, Reason: &reason}
	}
	local := l.ps.find(e.Pair.Local)
	here := e.Pair.Local == l.ps.address
	switch e.Kind {
	case foreign.Open:
		mine, its, incarnation, err := l.ends(e.Pair.Local, gateway)
		if err != nil {
			return fail(err)
		}
		l.kept[e.Number] = mine
		gateway.postLane(laneOpen, e.Pair.Foreign, func(b []byte) []byte {
			b = wire.AppendString(binary.AppendUvarint(b, e.Number), e.Pair.Local)
			return binary.AppendUvarint(b, incarnation)
		}, its)
	case foreign.Grant, foreign.Close:
		if mine := l.kept[e.Number]; mine != nil {
			delete(l.kept, e.Number)
			l.grant(e, local, mine)
		}
	case foreign.Accept:
		mine, its, incarnation, err := l.ends(e.Pair.Local, gateway)
		if err != nil {
			reason, ended := l.ps.endedFor(e.Pair.Local) // since the offer came
			if !ended {
				reason = errorReason(fmt.Errorf("%w: %w", ErrLane, err))
			}
			if gateway != nil {
				l.decline(gateway, e, reason, !ended)
			}
			return fail(err)
		}
		l.grant(e, local, mine)
		gateway.postLane(laneAccepted, e.Pair.Local, func(b []byte) []byte {
			return binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint(b, e.Ref), e.Number), incarnation)
		}, its)
	case foreign.Decline:
		if gateway != nil {
			l.decline(gateway, e, e.Reason, e.Broken)
		}
	case foreign.Tell:
		if here {
			l.ps.processEnded(e.Pair.Foreign, e.Reason)
		} else if local != nil && isNoActor(e.Reason) {
			local.postLane(laneNoProcess, e.Pair.Foreign, nil)
		} else if local != nil {
			local.postProcessEnded(e.Pair.Foreign, e.Reason)
		}
	case foreign.Fail:
		if here {
			l.ps.laneRefused(e.Pair.Foreign, e.Reason)
		} else if local != nil {
			l.ps.refuseLane(local, e.Pair.Foreign, e.Reason.Cause)
		}
	case foreign.Forget:
		if here {
			l.ps.forgetLane(e.Pair.Foreign, e.Number)
		} else if local != nil {
			local.postLane(laneForget, e.Pair.Foreign, func(b []byte) []byte { return binary.AppendUvarint(b, e.Number) })
		}
	case foreign.HostChanged:
		l.ps.events.hostChanged(e.Host)
	}
	return nil
}

// ends makes the two ends of a lane, one for a process of this host.
func (l *foreignLanes) ends(local string, gateway *peer) (mine, its *fdipc.Handle, incarnation uint64, err error) {
	if gateway == nil {
		return nil, nil, 0, ErrUnreachable
	}
	to, conn := gateway, gateway.conn // where this process is meant: in memory, if the gateway is
	if incarnation = l.ps.incarnation; local != l.ps.address {
		if to = l.ps.find(local); to == nil {
			return nil, nil, 0, ErrNoActor
		}
		incarnation, conn = to.incarnation, to.conn
	}
	if gateway.waiting() >= maxGrants || to.waiting() >= maxGrants {
		return nil, nil, 0, ErrBusy
	}
	mine, its, err = l.ps.broker.makeEnds(conn, gateway.conn)
	if err != nil {
		l.ps.log.Error("no channel to another host", slog.String("from", local), slog.Any("error", err))
	}
	return mine, its, incarnation, err
}

// grant gives a process of this host its end, or closes it if e does not say so or it has ended.
func (l *foreignLanes) grant(e foreign.Effect, local *peer, end *fdipc.Handle) {
	switch {
	case e.Kind == foreign.Close || local == nil && e.Pair.Local != l.ps.address:
		end.Close()
	case local == nil:
		l.ps.openLane(e.Pair.Foreign, e.Incarnation, e.Number, end)
	default:
		local.postLane(laneGrant, e.Pair.Foreign, func(b []byte) []byte {
			return binary.AppendUvarint(binary.AppendUvarint(b, e.Incarnation), e.Number)
		}, end)
	}
}

func (l *foreignLanes) decline(gateway *peer, e foreign.Effect, r supervisor.Reason, broken bool) {
	gateway.postLane(laneDeclined, e.Pair.Local, func(b []byte) []byte {
		return append(binary.AppendUvarint(b, e.Ref), whyNot(r, broken)...)
	})
}

// maxWhy bounds what goes to another host of a reason, in bytes.
const maxWhy = 4 << 10

// whyNot encodes why a process of this host has no lane or has ended: whether the lane alone is
// meant, and the reason. A long one goes without its stack and the end of its texts.
func whyNot(r supervisor.Reason, broken bool) []byte {
	b := []byte{0}
	if broken {
		b[0] = 1
	}
	full := appendReason(b, r)
	if len(full) <= maxWhy {
		return full
	}
	r.Stack, r.Detail = "", r.Detail[:min(len(r.Detail), maxWhy/4)]
	if text := r.String(); len(appendReason(b, r)) > maxWhy {
		r.Cause, r.Value = nil, nil
		r.Detail = text[:min(len(text), maxWhy/4)]
	}
	return appendReason(b, r)
}

// readWhy reads what whyNot has written. Of another host nothing is unreachable.
func readWhy(r *wire.Reader) (reason supervisor.Reason, broken bool) {
	if len(r.B) == 0 {
		return unreachable, false // the gateway says so
	}
	broken = r.Byte() == 1
	reason = readReason(r)
	if broken && reason.Cause == nil { // a lane fails for an error
		reason = errorReason(ErrLane)
	}
	return reason, broken
}

// onFrame takes what the gateway says. It returns false for what it may not say.
func (l *foreignLanes) onFrame(op byte, subject string, r *wire.Reader) bool {
	ev := foreign.Event{Pair: foreign.Pair{Foreign: subject}}
	var reason supervisor.Reason
	switch op {
	case laneOpened:
		ev.Kind, ev.Number, ev.Incarnation = foreign.Opened, r.Uint(), r.Uint()
	case laneRefused:
		ev.Kind, ev.Number = foreign.Refused, r.Uint()
		reason, ev.Broken = readWhy(r)
		ev.Reason = &reason
	case laneOffer:
		ev.Kind, ev.Ref, ev.Incarnation, ev.Pair.Local = foreign.Offered, r.Uint(), r.Uint(), r.Text(wire.MaxAddress)
		l.ps.mu.RLock()
		to := l.ps.byAddress[ev.Pair.Local]
		ended, known := l.ps.ended.find(ev.Pair.Local)
		l.ps.mu.RUnlock()
		switch {
		case ev.Pair.Local == l.ps.address, to != nil && !to.lane:
		case known:
			ev.Reason = &ended
		default:
			ev.Reason = &noActor
		}
	case laneEnded:
		ev.Kind, ev.Number, ev.Pair.Local = foreign.LaneEnded, r.Uint(), r.Text(wire.MaxAddress)
		if len(r.B) > 0 {
			reason, _ = readWhy(r)
			ev.Reason = &reason
		}
	case lanePeers:
		hosts := make([]string, 0, 8)
		for n := r.Uint(); n > 0 && !r.Bad; n-- {
			hosts = append(hosts, r.Text(wire.MaxAddress))
		}
		if r.Bad {
			return false
		}
		l.mu.Lock()
		l.hosts = hosts
		l.mu.Unlock()
		return true
	case laneHint:
		local := r.Text(wire.MaxAddress)
		if to := l.ps.find(local); r.Bad {
			return false
		} else if local == l.ps.address {
			l.ps.hinted(subject)
		} else if to != nil && !to.lane {
			to.postLane(laneHint, subject, nil)
		}
		return true
	case laneHostUp:
		ev.Kind, ev.Host, ev.Boot = foreign.HostUp, subject, r.Text(wire.MaxAddress)
	case laneHostDown:
		ev.Kind, ev.Boot = foreign.HostDown, subject
	case laneHolder, laneHolders:
		if op == laneHolder {
			if pid := r.PID(""); !r.Bad {
				l.ps.events.clusterChanged(subject, pid, 0)
			}
		} else if what := r.Byte(); !r.Bad {
			l.ps.events.clusterChanged("", nil, what)
		}
		return !r.Bad
	default:
		return false
	}
	if r.Bad || op != laneHostUp && op != laneHostDown && (!l.ps.isForeign(subject) || checkName(subject) != nil) {
		return false
	}
	l.step(ev)
	return true
}

func (l *foreignLanes) isGateway(p *peer) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gateway == p.address
}

// setGateway notes which attached process carries lanes.
func (l *foreignLanes) setGateway(p *peer) {
	l.mu.Lock()
	former := l.gateway
	l.gateway = p.address
	l.mu.Unlock()
	if former != p.address {
		l.step(foreign.Event{Kind: foreign.GatewayGone})
	}
	p.postLane(laneBegin, l.ps.address, nil)
}

// processEnded takes note of the end of a process of this host.
func (l *foreignLanes) processEnded(address string) {
	l.step(foreign.Event{Kind: foreign.LocalEnded, Pair: foreign.Pair{Local: address}})
	l.mu.Lock()
	carried := l.gateway == address
	if carried {
		l.gateway = ""
	}
	l.mu.Unlock()
	if carried {
		l.step(foreign.Event{Kind: foreign.GatewayGone})
	}
}

// master returns the address of the master of a host that a trunk leads to.
func (l *foreignLanes) master(host string) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if boot := l.rules.BootOf(host); boot != "" {
		return boot + masterSuffix, nil
	}
	if l.hosts != nil && !slices.Contains(l.hosts, host) {
		return "", fmt.Errorf("%w: %s is not among the peers of this host", ErrNoHost, host)
	}
	return "", ErrUnreachable
}

// hostOf returns the name of the host whose master has an address; "": it is no master's.
func (l *foreignLanes) hostOf(address string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if boot := foreign.Boot(address); address == boot+masterSuffix {
		return l.rules.Up[boot]
	}
	return ""
}
