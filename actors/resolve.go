package actors

import (
	"context"
	"encoding/binary"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/fdipc"
)

// Names are resolved where they are used. The master has the registry; a child
// asks it once for a name, remembers the answer, and is told when it changes. A
// change of a name is over, for who asked for it, when every process that
// remembers the name has been told: what is sent after that reaches the new holder.

const (
	// maxKnown bounds the names that a child remembers. Beyond that it forgets all.
	maxKnown = 8192
	// maxRemembered bounds the names, and what they begin with, that the master
	// keeps for one child. Beyond it the child is told to forget all.
	maxRemembered = 2 * maxKnown
	// moveWait bounds how long a child that does not answer holds up a change.
	moveWait = time.Second
)

// answer is what a name stands for.
type answer struct {
	pid     *actor.PID // of a name
	members []member   // of a pool
	err     error
}

// known are the names that a child remembers, and those it is asking for.
type known struct {
	mu    sync.RWMutex
	names map[string]*query
}

// query is a name whose answer is known or on its way.
type query struct {
	done    chan struct{} // closed when answer is there and queued is empty
	stale   bool          // it has moved meanwhile: the answer is not to be kept
	settled bool
	queued  []func(answer)
	answer  answer
}

// resolve returns who holds a name. It waits under ctx; under noContext for at
// most SendWait.
func (n *names) resolve(ctx context.Context, name string) (*actor.PID, error) {
	if !n.s.hasUplink() {
		if h := n.whereis(name); h != nil {
			return h, nil
		}
		return nil, ErrNoActor
	}
	a, err := n.wait(ctx, nameResolve, name)
	return a.pid, err
}

// wait returns the answer to a question for the master.
func (n *names) wait(ctx context.Context, op byte, name string) (answer, error) {
	key := queryKey(op, name)
	n.known.mu.RLock()
	q := n.known.names[key]
	n.known.mu.RUnlock()
	if q == nil {
		q = n.query(op, name, nil)
	}
	select {
	case <-q.done:
		return q.answer, q.answer.err
	default:
	}
	if ctx == noContext {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(context.Background(), n.s.cfg.SendWait, ErrBusy)
		defer cancel()
	}
	select {
	case <-q.done:
		return q.answer, q.answer.err
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}

// locate calls f with the holder of a name, now or when the master has said it.
func (n *names) locate(name string, f func(*actor.PID, error)) {
	if !n.s.hasUplink() {
		if h := n.whereis(name); h != nil {
			f(h, nil)
		} else {
			f(nil, ErrNoActor)
		}
		return
	}
	n.query(nameResolve, name, func(a answer) { f(a.pid, a.err) })
}

// queryKey is under what an answer is kept: no name ends with a slash and a star.
func queryKey(op byte, name string) string {
	if op == nameMembers {
		return name + "/*"
	}
	return name
}

// query returns the query for a name and begins it if there is none. f, if it is
// not nil, is called with the answer.
func (n *names) query(op byte, name string, f func(answer)) *query {
	key := queryKey(op, name)
	n.known.mu.Lock()
	q := n.known.names[key]
	if q == nil {
		if len(n.known.names) >= maxKnown {
			n.forgetLocked(func(string, *query) bool { return true })
		}
		q = &query{done: make(chan struct{})}
		if n.known.names == nil {
			n.known.names = make(map[string]*query)
		}
		n.known.names[key] = q
		// Ends with the master's answer or its end, or after SendWait.
		go n.ask(q, op, name, key)
	}
	if f != nil && !q.settled {
		q.queued = append(q.queued, f)
		f = nil
	}
	n.known.mu.Unlock()
	if f != nil {
		f(q.answer)
	}
	return q
}

// ask asks the master and settles q.
func (n *names) ask(q *query, op byte, name, key string) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), n.s.cfg.SendWait, ErrBusy)
	defer cancel()
	v, err := n.call(ctx, op, name, nil)
	a := answer{err: err}
	switch v := v.(type) {
	case *actor.PID:
		a.pid = v
	case []member:
		a.members = v
	}
	gone := a.pid != nil && n.s.isGone(a.pid.Address)
	n.known.mu.Lock()
	q.answer = a
	for len(q.queued) > 0 { // in order, and before who waits
		list := q.queued
		q.queued = nil
		n.known.mu.Unlock()
		for _, f := range list {
			f(a)
		}
		n.known.mu.Lock()
	}
	q.settled = true
	if (q.stale || gone || a.err != nil) && n.known.names[key] == q {
		delete(n.known.names, key)
	}
	n.known.mu.Unlock()
	close(q.done)
}

// forgetLocked forgets what match says; what is being asked for is not kept.
func (n *names) forgetLocked(match func(key string, q *query) bool) {
	for key, q := range n.known.names {
		if !match(key, q) {
			continue
		}
		delete(n.known.names, key)
		q.stale = true
	}
}

// processEnded forgets the names of a process that has ended, and in the master
// that it remembers any.
func (n *names) processEnded(address string) {
	n.known.mu.Lock()
	n.forgetLocked(func(_ string, q *query) bool {
		if q.settled && q.answer.pid != nil {
			return q.answer.pid.Address == address
		}
		return true // members, and what is on its way, may be of it
	})
	n.known.mu.Unlock()
	n.moves.forget(address)
}

// onMoved hears that what a name stands for has changed, in a child; or that a
// child has heard it, in the master.
func (s *System) onMoved(l *link, r *reader) {
	seq, key := r.uint(), r.string(maxText)
	if r.bad {
		s.bad(l, kindMoved)
		return
	}
	if !s.hasUplink() {
		s.names.moves.heard(seq, l.address)
		return
	}
	if l.address != s.uplinkAddress() {
		s.bad(l, kindMoved)
		return
	}
	n := &s.names
	n.known.mu.Lock()
	n.forgetLocked(func(k string, _ *query) bool {
		return key == "" || k == key || strings.HasPrefix(k, key+"/")
	})
	n.known.mu.Unlock()
	l.post(s.frame(kindMoved, fdipc.Control), func(b []byte) []byte {
		b = binary.AppendUvarint(appendPID(b, ProcessPID(l.address)), seq)
		return appendString(b, "")
	})
}

// moves are the master's: who remembers which name, and which changes are not
// yet known to all of them.
type moves struct {
	mu   sync.Mutex
	last uint64
	who  map[string]map[string]struct{} // key -> addresses
	keys map[string]int                 // address -> of how many keys it is
	open map[uint64]*move
}

// move is a change that some have not heard of.
type move struct {
	left  map[string]int // address -> frames it has not answered
	done  func()
	timer *time.Timer
}

// remember notes that the process with an address will remember what a name
// stands for. Who hears of a change remembers nothing, until it asks again. It
// returns false when that process remembers too much: nothing of it is noted any
// more, and it is to be told so before it is answered.
func (v *moves) remember(address, name string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.who == nil {
		v.who, v.keys = make(map[string]map[string]struct{}), make(map[string]int)
	}
	for i := len(name); i > 0; i = strings.LastIndexByte(name[:i], '/') {
		key := name[:i] // the holder of a prefix decides too
		who := v.who[key]
		if who == nil {
			who = make(map[string]struct{})
			v.who[key] = who
		}
		if _, ok := who[address]; !ok {
			who[address] = struct{}{}
			v.keys[address]++
		}
	}
	if v.keys[address] <= maxRemembered {
		return true
	}
	v.strikeLocked(address)
	return false
}

// strikeLocked forgets what a process remembers.
func (v *moves) strikeLocked(address string) {
	for key, who := range v.who {
		if delete(who, address); len(who) == 0 {
			delete(v.who, key)
		}
	}
	delete(v.keys, address)
}

// remember notes it in the master, of a child.
func (n *names) remember(address, name string) {
	if n.moves.remember(address, name) {
		return
	}
	if l := n.s.attached(address); l != nil {
		l.post(n.s.frame(kindMoved, fdipc.Control), func(b []byte) []byte {
			return appendString(binary.AppendUvarint(appendPID(b, ProcessPID(address)), 0), "") // all
		})
	}
}

// moved tells all who remember a name that it has changed, and calls done when
// they have heard it.
func (n *names) moved(name string, done func()) {
	v := &n.moves
	keys := []string{name}
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		keys = append(keys, name[:i]+"/*")
	}
	v.mu.Lock()
	m := &move{left: make(map[string]int), done: done}
	tell := make(map[string][]string) // key -> addresses
	for _, key := range keys {
		for a := range v.who[key] {
			m.left[a]++
			v.keys[a]--
			tell[key] = append(tell[key], a)
		}
		delete(v.who, key)
	}
	if len(m.left) == 0 {
		v.mu.Unlock()
		done()
		return
	}
	v.last++
	seq := v.last
	if v.open == nil {
		v.open = make(map[uint64]*move)
	}
	v.open[seq] = m
	m.timer = time.AfterFunc(moveWait, func() { v.finish(seq) })
	v.mu.Unlock()
	for key, list := range tell {
		for _, a := range list {
			l := n.s.attached(a)
			if l == nil {
				v.heard(seq, a)
				continue
			}
			l.post(n.s.frame(kindMoved, fdipc.Control), func(b []byte) []byte {
				b = binary.AppendUvarint(appendPID(b, ProcessPID(a)), seq)
				return appendString(b, key)
			})
		}
	}
}

// heard notes that a process has heard of a change.
func (v *moves) heard(seq uint64, address string) {
	v.mu.Lock()
	m := v.open[seq]
	if m != nil {
		if m.left[address]--; m.left[address] <= 0 {
			delete(m.left, address)
		}
	}
	over := m != nil && len(m.left) == 0
	v.mu.Unlock()
	if over {
		v.finish(seq)
	}
}

func (v *moves) finish(seq uint64) {
	v.mu.Lock()
	m := v.open[seq]
	delete(v.open, seq)
	v.mu.Unlock()
	if m != nil {
		m.timer.Stop()
		m.done()
	}
}

// forget strikes out a process that has ended.
func (v *moves) forget(address string) {
	v.mu.Lock()
	var finished []*move
	v.strikeLocked(address)
	for seq, m := range v.open {
		if _, ok := m.left[address]; !ok {
			continue
		}
		if delete(m.left, address); len(m.left) == 0 {
			delete(v.open, seq)
			finished = append(finished, m)
		}
	}
	v.mu.Unlock()
	for _, m := range finished {
		m.timer.Stop()
		m.done()
	}
}
