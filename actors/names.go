package actors

import (
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// ProcessPID returns the PID of the process with an address. Stop of it asks the
// process to drain, a monitor on it fires with the process's exit reason.
// Messages to it are dead letters.
func ProcessPID(address string) *actor.PID { return actor.NewPID(address, processID) }

// Process returns the PID of this process.
func (s *System) Process() *actor.PID { return ProcessPID(s.cfg.Address) }

// Lookup returns the PID of a name. It asks nobody and is never nil: the PID
// stands for the name, in every process of the tree, and each message sent to it
// reaches the holder of that moment. There are three kinds of names, tried in this order:
//
//	sessions       registered with Register
//	web/0/cache    the actor cache in the process that has the name web/0
//	sessions       else the actor of the master that was spawned with this name
//
// A name that nobody holds is [ErrNoActor] to Ask, Send and Monitor.
func (s *System) Lookup(name string) *actor.PID { return actor.NewPID(nameAddress, name) }

// Whereis returns who holds a name now. In a child process it asks the master,
// under ctx. Nobody is [ErrNoActor].
func (s *System) Whereis(ctx context.Context, name string) (*actor.PID, error) {
	v, err := s.names.call(ctx, nameWhereis, name, nil)
	if err != nil {
		return nil, fmt.Errorf("actors: whereis %q: %w", name, err)
	}
	pid, _ := v.(*actor.PID)
	return pid, nil
}

// Register gives a name to a live actor or process. The name is free again when
// its holder ends, or with [System.Unregister]. A name that another one holds is [ErrNameTaken].
// In a child process it asks the master, under ctx; a child names its own actors only, and
// a name that is the tree's own is [ErrReserved].
func (s *System) Register(ctx context.Context, name string, pid *actor.PID) error {
	if _, err := s.names.call(ctx, nameRegister, name, pid); err != nil {
		return fmt.Errorf("actors: register %q: %w", name, err)
	}
	return nil
}

// Reregister is Register that takes the name from who holds it. Messages sent
// from then on reach pid; what was sent before stays with the old holder.
func (s *System) Reregister(ctx context.Context, name string, pid *actor.PID) error {
	if _, err := s.names.call(ctx, nameReregister, name, pid); err != nil {
		return fmt.Errorf("actors: reregister %q: %w", name, err)
	}
	return nil
}

// Unregister frees a name if pid holds it, and else does nothing.
func (s *System) Unregister(ctx context.Context, name string, pid *actor.PID) error {
	if _, err := s.names.call(ctx, nameUnregister, name, pid); err != nil {
		return fmt.Errorf("actors: unregister %q: %w", name, err)
	}
	return nil
}

// Operations on names, as they stand in frames.
const (
	nameRegister   byte = 1
	nameReregister byte = 2
	nameUnregister byte = 3
	nameWhereis    byte = 4
	nameResolve    byte = 5 // whereis, and tell me when it changes
	nameMembers    byte = 6 // the processes of a pool, and tell me when they change
)

// names is the registry. The master's is the tree's; a child's holds nothing.
type names struct {
	s          *System
	mu         sync.RWMutex
	registered map[string]*registration
	perProcess map[string]int // address -> how many of m its actors hold

	changes nameChanges // of the master
	cache   nameCache   // of a child
}

type registration struct {
	pid *actor.PID
	mon *Monitor // frees the name; nil in the moment before it is set
}

func (n *names) init(s *System) {
	n.s, n.registered, n.perProcess = s, make(map[string]*registration), make(map[string]int)
}

// call does op here or, in a child, at the master. It returns a *actor.PID, a
// []member, or nil.
func (n *names) call(ctx context.Context, op byte, name string, pid *actor.PID) (any, error) {
	s := n.s
	if s.closed.Load() {
		return nil, ErrClosed
	}
	up := s.uplinkAddress()
	if up == "" {
		done := make(chan askResult, 1)
		n.do(op, name, pid, s.cfg.Address, func(v any, err error) { done <- askResult{v, err} })
		select {
		case r := <-done:
			return r.value, r.err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	master := ProcessPID(up)
	a := s.asks.begin(master)
	s.asks.route(a.id, up, nil)
	err := s.postTo(master, wire.KindNameRequest, func(b []byte) []byte {
		b = binary.AppendUvarint(append(b, op), uint64(a.id))
		b = wire.AppendString(b, name)
		if pid == nil {
			pid = &actor.PID{}
		}
		return wire.AppendPID(b, pid)
	})
	if err != nil && s.asks.end(a.id) != nil {
		return nil, err
	}
	return s.await(ctx, a)
}

// reserved reports whether a name is not for children to register: that of an actor of
// the master, which it would hide, or one that the hook says.
func (n *names) reserved(name string) bool {
	return n.s.incarnations.find(name) != nil || n.s.cfg.Hooks.Reserved != nil && n.s.cfg.Hooks.Reserved(name)
}

// do does op for the process from and calls done, once, perhaps later.
func (n *names) do(op byte, name string, pid *actor.PID, from string, done func(any, error)) {
	if err := checkName(name); err != nil {
		done(nil, err)
		return
	}
	switch op {
	case nameWhereis, nameResolve:
		if op == nameResolve { // before the look: a change after it is told
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
	case pid.Address != from && from != n.s.cfg.Address:
		done(nil, fmt.Errorf("%w: %s is not an actor of the process that asks", ErrName, pidString(pid)))
	case from != n.s.cfg.Address && n.reserved(name):
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
	if pid.Address != n.s.cfg.Address && n.perProcess[pid.Address] >= maxNames {
		n.mu.Unlock()
		done(ErrTooMany)
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

	// The name is held before its holder is watched, so that the end of the
	// holder finds it.
	mon := &Monitor{s: n.s, pid: pid}
	mon.onDown = func(Down, endCause) { n.drop(name, func(now *registration) bool { return now == reg }, func() {}) }
	n.s.monitors.start(mon)

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

// countLocked counts the names of a process.
func (n *names) countLocked(address string, by int) {
	if n.perProcess[address] += by; n.perProcess[address] == 0 {
		delete(n.perProcess, address)
	}
}

// drop frees name if the holding is the one meant, and calls done when all know it.
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

// whereis returns the holder of a name as this process knows it; nil: nobody.
func (n *names) whereis(name string) *actor.PID {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if reg := n.registered[name]; reg != nil {
		return reg.pid
	}
	for i := len(name); ; {
		i = strings.LastIndexByte(name[:i], '/')
		if i < 0 {
			break
		}
		if reg := n.registered[name[:i]]; reg != nil && reg.pid.Id == processID {
			return actor.NewPID(reg.pid.Address, name[i+1:])
		}
	}
	if n.s.incarnations.find(name) != nil {
		return actor.NewPID(n.s.cfg.Address, name)
	}
	if _, ok := n.s.foreignActor(name); ok {
		return actor.NewPID(n.s.cfg.Address, name)
	}
	return nil
}

// onName serves a child's request; in the master only.
func (s *System) onNameRequest(p *peer, r *wire.Reader) {
	op, ref := r.Byte(), r.Uint32()
	name := r.Text(wire.MaxText)
	pid := r.PID("")
	if r.Bad || s.hasUplink() {
		s.countMalformed(p, wire.KindNameRequest)
		return
	}
	s.names.do(op, name, pid, p.address, func(v any, err error) {
		p.post(s.frame(wire.KindNameReply, fdipc.Control), func(b []byte) []byte {
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

// What an answer to a name frame holds.
const (
	replyDone    byte = 0
	replyError   byte = 1
	replyPID     byte = 2
	replyMembers byte = 3
)

// onNameReply takes the master's answer.
func (s *System) onNameReply(p *peer, r *wire.Reader) {
	ref := r.Uint32()
	var err error
	var v any
	switch r.Byte() {
	case replyDone:
	case replyError:
		err = readError(r, nil)
	case replyPID:
		v = r.PID(s.cfg.Address)
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
	if r.Bad || p.address != s.uplinkAddress() {
		s.countMalformed(p, wire.KindNameReply)
		return
	}
	s.asks.finish(ref, v, err)
}

// ownProcess is the actor.Process of this process's own PID, for protoactor's functions.
type ownProcess struct{ s *System }

var _ actor.Process = ownProcess{}

func (p ownProcess) SendUserMessage(pid *actor.PID, message any) {
	_, msg, sender := actor.UnwrapEnvelope(message)
	p.s.undeliverable(pid, msg, sender, ErrNoActor)
}

func (p ownProcess) SendSystemMessage(_ *actor.PID, message any) {
	if _, ok := message.(*actor.Stop); ok {
		p.s.stopLocal(processID, wire.StopNormal, p.s.cfg.Address)
	}
}

func (p ownProcess) Stop(*actor.PID) { p.SendSystemMessage(nil, &actor.Stop{}) }
