package actors

import (
	"context"
	"encoding/binary"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/coppice-go/coppice/actors/internal/wire"
	"github.com/coppice-go/coppice/fdipc"
)

// Names are resolved where they are used. The master has the registry; a child
// asks it once for a name, remembers the answer, and is told when it changes. A
// change of a name is over, for who asked for it, when every process that
// remembers the name has been told: what is sent after that reaches the new holder.

const (
	// maxCachedNames bounds the names that a child remembers. Beyond that it forgets all.
	maxCachedNames = 8192
	// maxRemembered bounds the names, and what they begin with, that the master
	// keeps for one child. Beyond it the child is told to forget all.
	maxRemembered = 2 * maxCachedNames
	// changeWait bounds how long a child that does not answer holds up a change.
	changeWait = time.Second
)

// nameAnswer is what a name stands for.
type nameAnswer struct {
	pid     *actor.PID   // of a name
	members []poolMember // of a pool
	err     error
}

// nameCache holds the names that a child remembers, and those it is asking for.
type nameCache struct {
	mu    sync.RWMutex
	names map[string]*nameQuery
}

// nameQuery is a name whose answer is known or on its way.
type nameQuery struct {
	done     chan struct{} // closed when answer is there and queued is empty
	outdated bool          // it has moved meanwhile: the answer is not to be kept
	settled  bool
	queued   []func(nameAnswer)
	answer   nameAnswer
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
func (n *names) wait(ctx context.Context, op byte, name string) (nameAnswer, error) {
	key := cacheKey(op, name)
	n.cache.mu.RLock()
	q := n.cache.names[key]
	n.cache.mu.RUnlock()
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
		return nameAnswer{}, context.Cause(ctx)
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
	n.query(nameResolve, name, func(a nameAnswer) { f(a.pid, a.err) })
}

// cacheKey is under what an answer is kept: no name ends with a slash and a star.
func cacheKey(op byte, name string) string {
	if op == nameMembers {
		return name + "/*"
	}
	return name
}

// query returns the query for a name and begins it if there is none. f, if it is
// not nil, is called with the answer.
func (n *names) query(op byte, name string, f func(nameAnswer)) *nameQuery {
	key := cacheKey(op, name)
	n.cache.mu.Lock()
	q := n.cache.names[key]
	if q == nil {
		if len(n.cache.names) >= maxCachedNames {
			n.forgetLocked(func(string, *nameQuery) bool { return true })
		}
		q = &nameQuery{done: make(chan struct{})}
		if n.cache.names == nil {
			n.cache.names = make(map[string]*nameQuery)
		}
		n.cache.names[key] = q
		// Ends with the master's answer or its end, or after SendWait.
		go n.ask(q, op, name, key)
	}
	if f != nil && !q.settled {
		q.queued = append(q.queued, f)
		f = nil
	}
	n.cache.mu.Unlock()
	if f != nil {
		f(q.answer)
	}
	return q
}

// ask asks the master and settles q.
func (n *names) ask(q *nameQuery, op byte, name, key string) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), n.s.cfg.SendWait, ErrBusy)
	defer cancel()
	v, err := n.call(ctx, op, name, nil)
	a := nameAnswer{err: err}
	switch v := v.(type) {
	case *actor.PID:
		a.pid = v
	case []poolMember:
		a.members = v
	}
	gone := a.pid != nil && n.s.hasEnded(a.pid.Address)
	n.cache.mu.Lock()
	q.answer = a
	for len(q.queued) > 0 { // in order, and before who waits
		list := q.queued
		q.queued = nil
		n.cache.mu.Unlock()
		for _, f := range list {
			f(a)
		}
		n.cache.mu.Lock()
	}
	q.settled = true
	if (q.outdated || gone || a.err != nil) && n.cache.names[key] == q {
		delete(n.cache.names, key)
	}
	n.cache.mu.Unlock()
	close(q.done)
}

// forgetLocked forgets what match says; what is being asked for is not kept.
func (n *names) forgetLocked(match func(key string, q *nameQuery) bool) {
	for key, q := range n.cache.names {
		if !match(key, q) {
			continue
		}
		delete(n.cache.names, key)
		q.outdated = true
	}
}

// processEnded forgets the names of a process that has ended, and in the master
// that it remembers any.
func (n *names) processEnded(address string) {
	n.cache.mu.Lock()
	n.forgetLocked(func(_ string, q *nameQuery) bool {
		if q.settled && q.answer.pid != nil {
			return q.answer.pid.Address == address
		}
		return true // members, and what is on its way, may be of it
	})
	n.cache.mu.Unlock()
	n.changes.processEnded(address)
}

// onNameChanged hears that what a name stands for has changed, in a child; or that a
// child has heard it, in the master.
func (s *System) onNameChanged(p *peer, r *wire.Reader) {
	seq, key := r.Uint(), r.Text(wire.MaxText)
	if r.Bad {
		s.countMalformed(p, wire.KindNameChanged)
		return
	}
	if !s.hasUplink() {
		s.names.changes.acknowledged(seq, p.address)
		return
	}
	if p.address != s.uplinkAddress() {
		s.countMalformed(p, wire.KindNameChanged)
		return
	}
	n := &s.names
	n.cache.mu.Lock()
	n.forgetLocked(func(k string, _ *nameQuery) bool {
		return key == "" || k == key || strings.HasPrefix(k, key+"/")
	})
	n.cache.mu.Unlock()
	p.post(s.frame(wire.KindNameChanged, fdipc.Control), func(b []byte) []byte {
		b = binary.AppendUvarint(wire.AppendPID(b, ProcessPID(p.address)), seq)
		return wire.AppendString(b, "")
	})
}

// nameChanges are the master's: who remembers which name, and which changes are not
// yet known to all of them.
type nameChanges struct {
	mu          sync.Mutex
	last        uint64
	remembering map[string]map[string]struct{} // key -> addresses
	perProcess  map[string]int                 // address -> of how many keys it is
	open        map[uint64]*nameChange
}

// nameChange is a change that some have not heard of.
type nameChange struct {
	waitsFor map[string]int // address -> frames it has not answered
	done     func()
	timer    *time.Timer
}

// remember notes that the process with an address will remember what a name
// stands for. Who hears of a change remembers nothing, until it asks again. It
// returns false when that process remembers too much: nothing of it is noted any
// more, and it is to be told so before it is answered.
func (c *nameChanges) remember(address, name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.remembering == nil {
		c.remembering, c.perProcess = make(map[string]map[string]struct{}), make(map[string]int)
	}
	for i := len(name); i > 0; i = strings.LastIndexByte(name[:i], '/') {
		key := name[:i] // the holder of a prefix decides too
		who := c.remembering[key]
		if who == nil {
			who = make(map[string]struct{})
			c.remembering[key] = who
		}
		if _, ok := who[address]; !ok {
			who[address] = struct{}{}
			c.perProcess[address]++
		}
	}
	if c.perProcess[address] <= maxRemembered {
		return true
	}
	c.forgetProcessLocked(address)
	return false
}

// forgetProcessLocked forgets what a process remembers.
func (c *nameChanges) forgetProcessLocked(address string) {
	for key, who := range c.remembering {
		if delete(who, address); len(who) == 0 {
			delete(c.remembering, key)
		}
	}
	delete(c.perProcess, address)
}

// remember notes it in the master, of a child.
func (n *names) remember(address, name string) {
	if n.changes.remember(address, name) {
		return
	}
	if p := n.s.attached(address); p != nil {
		p.post(n.s.frame(wire.KindNameChanged, fdipc.Control), func(b []byte) []byte {
			return wire.AppendString(binary.AppendUvarint(wire.AppendPID(b, ProcessPID(address)), 0), "") // all
		})
	}
}

// tellChanged tells all who remember a name that it has changed, and calls done when
// they have heard it.
func (n *names) tellChanged(name string, done func()) {
	c := &n.changes
	keys := []string{name}
	if i := strings.LastIndexByte(name, '/'); i > 0 {
		keys = append(keys, name[:i]+"/*")
	}
	c.mu.Lock()
	change := &nameChange{waitsFor: make(map[string]int), done: done}
	tell := make(map[string][]string) // key -> addresses
	for _, key := range keys {
		for a := range c.remembering[key] {
			change.waitsFor[a]++
			c.perProcess[a]--
			tell[key] = append(tell[key], a)
		}
		delete(c.remembering, key)
	}
	if len(change.waitsFor) == 0 {
		c.mu.Unlock()
		done()
		return
	}
	c.last++
	seq := c.last
	if c.open == nil {
		c.open = make(map[uint64]*nameChange)
	}
	c.open[seq] = change
	change.timer = time.AfterFunc(changeWait, func() { c.finish(seq) })
	c.mu.Unlock()
	for key, list := range tell {
		for _, a := range list {
			p := n.s.attached(a)
			if p == nil {
				c.acknowledged(seq, a)
				continue
			}
			p.post(n.s.frame(wire.KindNameChanged, fdipc.Control), func(b []byte) []byte {
				b = binary.AppendUvarint(wire.AppendPID(b, ProcessPID(a)), seq)
				return wire.AppendString(b, key)
			})
		}
	}
}

// acknowledged notes that a process has heard of a change.
func (c *nameChanges) acknowledged(seq uint64, address string) {
	c.mu.Lock()
	change := c.open[seq]
	if change != nil {
		if change.waitsFor[address]--; change.waitsFor[address] <= 0 {
			delete(change.waitsFor, address)
		}
	}
	over := change != nil && len(change.waitsFor) == 0
	c.mu.Unlock()
	if over {
		c.finish(seq)
	}
}

func (c *nameChanges) finish(seq uint64) {
	c.mu.Lock()
	change := c.open[seq]
	delete(c.open, seq)
	c.mu.Unlock()
	if change != nil {
		change.timer.Stop()
		change.done()
	}
}

// processEnded strikes out a process that has ended.
func (c *nameChanges) processEnded(address string) {
	c.mu.Lock()
	var finished []*nameChange
	c.forgetProcessLocked(address)
	for seq, change := range c.open {
		if _, ok := change.waitsFor[address]; !ok {
			continue
		}
		if delete(change.waitsFor, address); len(change.waitsFor) == 0 {
			delete(c.open, seq)
			finished = append(finished, change)
		}
	}
	c.mu.Unlock()
	for _, change := range finished {
		change.timer.Stop()
		change.done()
	}
}
