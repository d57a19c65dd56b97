package actors

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// Operations on names, as they stand in frames.
const (
	nameRegister   byte = 1
	nameReregister byte = 2
	nameUnregister byte = 3
	nameWhereis    byte = 4
	nameResolve    byte = 5 // whereis, with notice of changes
	nameMembers    byte = 6 // the processes of a pool, with notice of changes
)

// names owns the registered names. In the master it is the registry of the tree; in a child it
// caches the master's answers.
type names struct {
	*localProcess
	local    *localActors
	peers    *peers
	monitors *monitors
	asks     *askTable
	hook     func(name string) bool // Hooks.Reserved; may be nil

	mu         sync.RWMutex
	holders    map[string]*actor.PID // of names of the cluster, in the master; nil: they are not known
	following  map[string]*actor.PID // those that the gateway is telling; nil: it is telling none
	registered map[string]*registration
	perProcess map[string]int // address -> how many names its actors have

	changes nameChanges // of the master
	cache   nameCache   // of a child
}

type registration struct {
	pid *actor.PID
	mon *Monitor // frees the name; nil in the moment before it is set
}

func newNames(proc *localProcess, local *localActors, ps *peers, mons *monitors, asks *askTable, hook func(string) bool) *names {
	return &names{
		localProcess: proc, local: local, peers: ps, monitors: mons, asks: asks, hook: hook,
		registered: make(map[string]*registration), perProcess: make(map[string]int),
		changes: nameChanges{remembering: make(map[string]map[string]struct{}), perProcess: make(map[string]int), open: make(map[uint64]*nameChange)},
		cache:   nameCache{names: make(map[string]*nameQuery)},
	}
}

// call does op here or, in a child, at the master. It returns a *actor.PID, a []poolMember, or nil.
func (n *names) call(ctx context.Context, op byte, name string, pid *actor.PID) (any, error) {
	if n.closed.Load() {
		return nil, ErrClosed
	}
	up := n.peers.uplinkAddress()
	_, rest, foreign := abroad(name)
	if foreign && op != nameWhereis && op != nameResolve {
		return nil, fmt.Errorf("%w: it is of another host", ErrName)
	}
	if up == "" && foreign && !ofCluster(name) {
		var err error
		if up, err = n.peers.masterOf(name); err != nil {
			return nil, err
		}
		name = rest
	}
	if up == "" {
		type result struct {
			value any
			err   error
		}
		done := make(chan result, 1)
		n.do(op, name, pid, n.address, func(v any, err error) { done <- result{v, err} })
		select {
		case r := <-done:
			return r.value, r.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if err := checkName(rest); err != nil {
		return nil, err
	}
	master := ProcessPID(up)
	ask, err := n.asks.begin(master)
	if err != nil {
		return nil, err
	}
	n.asks.sentTo(uint32(ask.ID), up, nil)
	err = n.peers.postTo(master, wire.KindNameRequest, func(b []byte) []byte {
		b = binary.AppendUvarint(append(b, op), ask.ID)
		b = wire.AppendString(b, name)
		if pid == nil {
			pid = &actor.PID{}
		}
		return wire.AppendPID(b, pid)
	})
	if err != nil && n.asks.cancel(ask) {
		return nil, err
	}
	return n.asks.wait(ctx, ask)
}

// reserved reports whether children may not register a name: it is that of an actor of the master,
// which it would hide, or the hook says so.
func (n *names) reserved(name string) bool {
	return n.local.find(name) != nil || n.hook != nil && n.hook(name)
}

// do does op for the process from and calls done, once, perhaps later.
func (n *names) do(op byte, name string, pid *actor.PID, from string, done func(any, error)) {
	if _, rest, ok := abroad(name); ok && ofCluster(name) && checkName(rest) == nil && !n.isForeign(from) {
		if op == nameResolve {
			n.remember(from, name)
		}
		if pid, err := n.find(name); err != nil {
			done(nil, err)
		} else {
			done(pid, nil)
		}
		return
	} else if ok && (op == nameResolve || op == nameWhereis) && checkName(rest) == nil && !n.isForeign(from) {
		n.remember(from, name)
		n.query(nameResolve, name, func(a nameAnswer) { done(a.pid, a.err) })
		return
	}
	if err := checkName(name); err != nil {
		done(nil, err)
		return
	}
	switch op {
	case nameWhereis, nameResolve:
		if op == nameResolve { // before the look, so that the process hears of a change after it
			n.remember(from, name)
		}
		if h := n.whereis(name); h != nil {
			done(h, nil)
		} else {
			done(nil, ErrNoActor)
		}
		return
	case nameMembers:
		n.remember(from, cacheKey(op, name))
		done(n.members(name), nil)
		return
	case nameRegister, nameReregister, nameUnregister:
	default:
		done(nil, fmt.Errorf("%w: operation %d on a name", ErrMalformed, op))
		return
	}
	if pid != nil && pid.Address == nameAddress {
		pid = n.whereis(pid.Id)
	}
	switch {
	case pid == nil || pid.Address == "" || pid.Id == "":
		done(nil, ErrNoActor)
	case pid.Address != from && from != n.address:
		done(nil, fmt.Errorf("%w: %s is not an actor of the process that asks", ErrName, pidString(pid)))
	case from != n.address && n.reserved(name):
		done(nil, fmt.Errorf("%w: choose one that does not begin with that of a child of the tree", ErrReserved))
	case op == nameUnregister:
		n.drop(name, func(reg *registration) bool { return reg.pid.Equal(pid) }, func() { done(nil, nil) })
	default:
		n.register(name, pid, op == nameReregister, func(err error) { done(nil, err) })
	}
}

func (n *names) register(name string, pid *actor.PID, replace bool, done func(error)) {
	reg := &registration{pid: pid}
	n.mu.Lock()
	old := n.registered[name]
	switch {
	case old == nil:
	case old.pid.Equal(pid):
		n.mu.Unlock()
		done(nil)
		return
	case !replace:
		n.mu.Unlock()
		done(ErrNameTaken)
		return
	}
	if pid.Address != n.address && n.perProcess[pid.Address] >= maxNames {
		n.mu.Unlock()
		done(fmt.Errorf("%w: %d names, the limit", ErrTooMany, maxNames))
		return
	}
	if old != nil {
		n.countLocked(old.pid.Address, -1)
	}
	n.countLocked(pid.Address, +1)
	n.registered[name] = reg
	n.mu.Unlock()
	if old != nil && old.mon != nil {
		old.mon.Cancel()
	}

	// The name is held before its holder is watched, so that the end of the holder finds it.
	mon := n.holderMonitor(name, reg)
	n.monitors.start(mon)

	n.mu.Lock()
	held := n.registered[name] == reg
	if held {
		reg.mon = mon
	}
	n.mu.Unlock()
	n.tellChanged(name, func() {
		if !held && n.whereis(name) == nil {
			done(ErrNoActor)
			return
		}
		done(nil)
	})
	if !held {
		mon.Cancel() // replaced, or the holder has ended
	}
}

func (n *names) holderMonitor(name string, reg *registration) *Monitor {
	return &Monitor{table: n.monitors, pid: reg.pid, onDown: func(Down, endCause) {
		n.drop(name, func(now *registration) bool { return now == reg }, func() {})
	}}
}

// countLocked counts the names of a process.
func (n *names) countLocked(address string, by int) {
	if n.perProcess[address] += by; n.perProcess[address] == 0 {
		delete(n.perProcess, address)
	}
}

// drop frees name if its registration is the one meant, and calls done when all processes know it.
func (n *names) drop(name string, meant func(*registration) bool, done func()) {
	n.mu.Lock()
	reg := n.registered[name]
	if reg == nil || !meant(reg) {
		n.mu.Unlock()
		done()
		return
	}
	delete(n.registered, name)
	n.countLocked(reg.pid.Address, -1)
	n.mu.Unlock()
	if reg.mon != nil {
		reg.mon.Cancel()
	}
	n.tellChanged(name, done)
}

// whereis returns the holder of a name, in the master; nil: it has none.
func (n *names) whereis(name string) *actor.PID {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if reg := n.registered[name]; reg != nil {
		return reg.pid
	}
	for i := strings.LastIndexByte(name, '/'); i >= 0; i = strings.LastIndexByte(name[:i], '/') {
		if reg := n.registered[name[:i]]; reg != nil && reg.pid.Id == processID {
			return actor.NewPID(reg.pid.Address, name[i+1:])
		}
	}
	if n.local.exists(name) {
		return actor.NewPID(n.address, name)
	}
	return nil
}

// find returns the holder of a name that this process decides.
func (n *names) find(name string) (*actor.PID, error) {
	if !ofCluster(name) {
		if h := n.whereis(name); h != nil {
			return h, nil
		}
		return nil, ErrNoActor
	}
	n.mu.RLock()
	defer n.mu.RUnlock()
	switch pid := n.holders[name]; {
	case n.holders == nil:
		return nil, ErrUnavailable
	case pid == nil:
		return nil, ErrNoActor
	default:
		return pid, nil
	}
}

// clusterChanged records, in the master, who has a name of the cluster; without an address the name
// is free. Without a name it concerns all of them.
func (n *names) clusterChanged(name string, pid *actor.PID, what byte) {
	key := nameAddress + clusterHost
	n.mu.Lock()
	switch {
	case name != "":
		key += "/" + name
		for _, m := range []map[string]*actor.PID{n.holders, n.following} {
			if delete(m, key); m != nil && pid.Address != "" {
				m[key] = pid
			}
		}
	case what == holdersFollow:
		n.following = make(map[string]*actor.PID)
	case what == holdersComplete:
		n.holders, n.following = n.following, nil
	default:
		n.holders, n.following = nil, nil
	}
	n.mu.Unlock()
	if name != "" || what != holdersFollow {
		n.tellChanged(key, func() {})
	}
}

// onRequest serves a child's request; in the master only.
func (n *names) onRequest(p *peer, r *wire.Reader) {
	op, ref := r.Byte(), r.Uint32()
	name := r.Text(wire.MaxText)
	pid := r.PID("")
	if r.Bad || n.peers.hasUplink() || p.lane && !n.mayAsk(p, op) {
		n.countMalformed(p.address, wire.KindNameRequest)
		return
	}
	n.do(op, name, pid, p.address, func(v any, err error) {
		p.post(n.frame(wire.KindNameReply, fdipc.Control), func(b []byte) []byte {
			b = wire.AppendPID(b, ProcessPID(p.address))
			b = binary.AppendUvarint(b, uint64(ref))
			if err != nil {
				return appendError(append(b, replyError), err)
			}
			switch v := v.(type) {
			case *actor.PID:
				return wire.AppendPID(append(b, replyPID), v)
			case []poolMember:
				b = binary.AppendUvarint(append(b, replyMembers), uint64(len(v)))
				for _, m := range v {
					b = wire.AppendString(wire.AppendString(b, m.name), m.address)
				}
				return b
			}
			return append(b, replyDone)
		})
	})
}

// mayAsk reports whether a process of another host may ask this master for op: a master may look
// names up.
func (n *names) mayAsk(p *peer, op byte) bool {
	return n.peers.foreign.hostOf(p.address) != "" && (op == nameWhereis || op == nameResolve)
}

// What an answer to a name frame holds.
const (
	replyDone    byte = 0
	replyError   byte = 1
	replyPID     byte = 2
	replyMembers byte = 3
)

// onReply takes the master's answer.
func (n *names) onReply(p *peer, r *wire.Reader) {
	ref := r.Uint32()
	var err error
	var v any
	switch r.Byte() {
	case replyDone:
	case replyError:
		err = readError(r, nil)
	case replyPID:
		v = r.PID(n.address)
	case replyMembers:
		count := r.Uint()
		var list []poolMember
		for ; count > 0 && !r.Bad; count-- {
			list = append(list, poolMember{r.Text(wire.MaxText), r.Text(wire.MaxAddress)})
		}
		v = list
	default:
		r.Fail()
	}
	if r.Bad || p.address != n.peers.uplinkAddress() && n.peers.hostOf(p) == "" {
		n.countMalformed(p.address, wire.KindNameReply)
		return
	}
	n.asks.finish(ref, v, err)
}

// poolMember is a process of a pool.
type poolMember struct{ name, address string }

// members returns the processes of a pool, shortest name first, so that slot 10 comes after slot 9.
func (n *names) members(pool string) []poolMember {
	n.mu.RLock()
	list := []poolMember{}
	for name, reg := range n.registered {
		rest, ok := strings.CutPrefix(name, pool+"/")
		if ok && !strings.Contains(rest, "/") && reg.pid.Id == processID {
			list = append(list, poolMember{name, reg.pid.Address})
		}
	}
	n.mu.RUnlock()
	slices.SortFunc(list, func(a, b poolMember) int {
		return cmp.Or(len(a.name)-len(b.name), strings.Compare(a.name, b.name))
	})
	return list
}
