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

// Names are resolved where they are used. The master has the registry; a child asks it once for a
// name, caches the answer, and hears from it when that changes. A call that changes a name returns
// when every process that caches the name has heard: what is sent after that reaches the new
// holder.

const (
	// maxCachedNames bounds the names that a child caches. Beyond that it forgets all.
	maxCachedNames = 8192
	// maxRemembered bounds the names, and their prefixes, that the master remembers of one child's
	// cache. Beyond it the master tells the child to forget all.
	maxRemembered = 2 * maxCachedNames
	// changeWait bounds how long a child that does not acknowledge a change holds it up.
	changeWait = time.Second
)

// nameAnswer is what a name stands for.
type nameAnswer struct {
	pid     *actor.PID   // of a name
	members []poolMember // of a pool
	err     error
}

// nameCache has the answers of the master, and the questions that it has not answered.
type nameCache struct {
	mu    sync.RWMutex
	names map[string]*nameQuery
}

// nameQuery is a name whose answer is known or on its way.
type nameQuery struct {
	done     chan struct{} // closed when answer is there and queued is empty
	outdated bool          // the name has changed since: the answer is not to be kept
	answered bool
	queued   []func(nameAnswer)
	answer   nameAnswer
}

// resolve returns the holder of a name. It waits under ctx; under noContext for at most SendWait.
func (n *names) resolve(ctx context.Context, name string) (*actor.PID, error) {
	if n.decides(name) {
		return n.find(name)
	}
	a, err := n.wait(ctx, nameResolve, name)
	return a.pid, err
}

// decides reports whether this process knows who holds a name: the master does, but for names in
// the trees of other hosts.
func (n *names) decides(name string) bool {
	_, _, foreign := abroad(name)
	return (!foreign || ofCluster(name)) && !n.peers.hasUplink()
}

// wait returns the answer to a question for the master, from the cache if it is there.
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
		ctx, cancel = context.WithTimeoutCause(context.Background(), n.sendWait, ErrBusy)
		defer cancel()
	}
	select {
	case <-q.done:
		return q.answer, q.answer.err
	case <-ctx.Done():
		return nameAnswer{}, context.Cause(ctx)
	}
}

// locate calls f with the holder of a name, now or when the master has answered.
func (n *names) locate(name string, f func(*actor.PID, error)) {
	if n.decides(name) {
		f(n.find(name))
		return
	}
	n.query(nameResolve, name, func(a nameAnswer) { f(a.pid, a.err) })
}

// cacheKey is the key of an answer in the cache. No name ends with a slash and a star.
func cacheKey(op byte, name string) string {
	if op == nameMembers {
		return name + "/*"
	}
	return name
}

// query returns the query for a name and begins it if there is none. f, if it is not nil, is called
// with the answer.
func (n *names) query(op byte, name string, f func(nameAnswer)) *nameQuery {
	key := cacheKey(op, name)
	n.cache.mu.Lock()
	q := n.cache.names[key]
	if q == nil {
		if len(n.cache.names) >= maxCachedNames {
			n.forgetLocked(func(string, *nameQuery) bool { return true })
		}
		q = &nameQuery{done: make(chan struct{})}
		n.cache.names[key] = q
		// Ends with the master's answer or its end, or after SendWait.
		go n.ask(q, op, name, key)
	}
	if f != nil && !q.answered {
		q.queued = append(q.queued, f)
		f = nil
	}
	n.cache.mu.Unlock()
	if f != nil {
		f(q.answer)
	}
	return q
}

// ask asks the master and answers q.
func (n *names) ask(q *nameQuery, op byte, name, key string) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), n.sendWait, ErrBusy)
	defer cancel()
	v, err := n.call(ctx, op, name, nil)
	a := nameAnswer{err: err}
	switch v := v.(type) {
	case *actor.PID:
		a.pid = v
	case []poolMember:
		a.members = v
	}
	gone := false
	if a.pid != nil {
		_, gone = n.peers.endedFor(a.pid.Address)
	}
	n.cache.mu.Lock()
	q.answer = a
	for len(q.queued) > 0 { // in order, and before the callers of wait go on
		list := q.queued
		q.queued = nil
		n.cache.mu.Unlock()
		for _, f := range list {
			f(a)
		}
		n.cache.mu.Lock()
	}
	q.answered = true
	if (q.outdated || gone || a.err != nil) && n.cache.names[key] == q {
		delete(n.cache.names, key)
	}
	n.cache.mu.Unlock()
	close(q.done)
}

// forgetLocked forgets the answers that match selects. Answers that are on their way will not be
// kept.
func (n *names) forgetLocked(match func(key string, q *nameQuery) bool) {
	for key, q := range n.cache.names {
		if match(key, q) {
			delete(n.cache.names, key)
			q.outdated = true
		}
	}
}

// processEnded forgets the names of a process that has ended and, in the master, what that process
// has cached.
func (n *names) processEnded(address string) {
	n.cache.mu.Lock()
	n.forgetLocked(func(_ string, q *nameQuery) bool {
		if q.answered && q.answer.pid != nil {
			return q.answer.pid.Address == address
		}
		return true // pools, and answers on their way, may name it
	})
	n.cache.mu.Unlock()
	n.changes.processEnded(address)
}

// forget forgets the answers for a key and what is below it; "" is all.
func (n *names) forget(key string) {
	n.cache.mu.Lock()
	n.forgetLocked(func(k string, _ *nameQuery) bool {
		return key == "" || k == key || strings.HasPrefix(k, key+"/")
	})
	n.cache.mu.Unlock()
}

// hostChanged takes note, in the master, that a key of the names of another host has changed; "" is
// all of them. The children hear of it.
func (n *names) hostChanged(host, key string) {
	at := nameAddress + host
	if key != "" {
		at += "/" + key
	}
	n.forget(at)
	n.tellChanged(at, func() {})
}

// onChanged takes the master's word that a name has changed; in the master, a child's
// acknowledgement.
func (n *names) onChanged(p *peer, r *wire.Reader) {
	seq, key := r.Uint(), r.Text(wire.MaxText)
	if r.Bad {
		n.countMalformed(p.address, wire.KindNameChanged)
		return
	}
	if host := n.peers.hostOf(p); host != "" {
		n.hostChanged(host, key)
		return
	}
	if !n.peers.hasUplink() {
		n.changes.acknowledged(seq, p.address)
		return
	}
	if p.address != n.peers.uplinkAddress() {
		n.countMalformed(p.address, wire.KindNameChanged)
		return
	}
	n.forget(key)
	p.post(n.frame(wire.KindNameChanged, fdipc.Control), func(b []byte) []byte {
		b = binary.AppendUvarint(wire.AppendPID(b, ProcessPID(p.address)), seq)
		return wire.AppendString(b, "")
	})
}
