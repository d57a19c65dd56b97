package dispatch

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coppice-go/coppice/netactor/internal/balance"
)

// Guarded is a key of Functions.PoisonKey, after the name of its listener and a colon, whose
// connections are turned away.
type Guarded struct {
	Key string

	// If Probe is not 0 and no earlier call has had it for the key, the next connection goes to the
	// worker with the ID Worker, and to no other.
	Probe, Worker uint64
}

// firstKeys are what the listeners turn away. While that is nothing a look at it is a load.
type firstKeys struct {
	mu       sync.Mutex
	bySource map[string]map[string]*firstKey
	all      atomic.Pointer[map[string]*firstKey] // nil = none
}

type firstKey struct {
	Guarded
	source  string
	probed  atomic.Uint64 // the newest probe that was used
	refused atomic.Uint64 // connections of which nobody was told
	toldAt  atomic.Int64  // Unix time in nanoseconds
}

// tellEvery is how often Config.Refused is told of a key.
const tellEvery = int64(time.Second)

// Guard says which connections to turn away, in place of what the same source has said before.
func (d *Dispatcher) Guard(source string, keys []Guarded) {
	g := &d.guarded
	g.mu.Lock()
	defer g.mu.Unlock()
	before, now := g.bySource[source], map[string]*firstKey{}
	for _, k := range keys {
		n := &firstKey{Guarded: k, source: source}
		if b := before[k.Key]; b != nil {
			n.probed.Store(b.probed.Load())
			n.refused.Store(b.refused.Load())
		}
		now[k.Key] = n
	}
	if g.bySource == nil {
		g.bySource = map[string]map[string]*firstKey{}
	}
	g.bySource[source] = now
	if len(now) == 0 {
		delete(g.bySource, source)
	}
	all := map[string]*firstKey{}
	for _, name := range slices.Sorted(maps.Keys(g.bySource)) {
		maps.Copy(all, g.bySource[name])
	}
	g.all.Store(&all)
	if len(all) == 0 {
		g.all.Store(nil)
	}
}

// maxPoisonKey bounds a key with its listener's name, in bytes.
const maxPoisonKey = 216

// poisonName returns a key after the name of its listener, which is its name for Guard.
func poisonName(listener, key string) string {
	name := listener + ": " + key
	if len(name) > maxPoisonKey {
		name = fmt.Sprintf("%s#%016x", name[:maxPoisonKey-17], bytesKey([]byte(name)))
	}
	return name
}

// judge marks a connection whose key is known as far as it will be: it is turned away, or goes to
// one worker alone, or neither.
func (d *Dispatcher) judge(p *balance.PendingConn) {
	all := d.guarded.all.Load()
	if all == nil || p.First == "" {
		return
	}
	k := (*all)[p.First]
	if k == nil {
		return
	}
	if used := k.probed.Load(); k.Probe > used && k.probed.CompareAndSwap(used, k.Probe) {
		p.OnlyTo = k.Worker
		return
	}
	p.Peek = balance.PeekRefused
	k.refused.Add(1)
	now, told := time.Now().UnixNano(), k.toldAt.Load()
	if d.cfg.Refused != nil && now-told >= tellEvery && k.toldAt.CompareAndSwap(told, now) {
		d.cfg.Refused(k.source, p.First, k.refused.Swap(0))
	}
}

// untried lets the next connection be the probe, if this one was and did not reach the worker.
func (d *Dispatcher) untried(p *balance.PendingConn) {
	if all := d.guarded.all.Load(); all != nil && p.OnlyTo != 0 {
		if k := (*all)[p.First]; k != nil && k.Worker == p.OnlyTo {
			k.probed.CompareAndSwap(k.Probe, k.Probe-1)
		}
	}
}

// settleJudgedLocked ends the peeking of a connection that judge has marked. It is offered, or
// appended to away.
func (d *Dispatcher) settleJudgedLocked(p *balance.PendingConn, acts *actions, away []*balance.PendingConn) []*balance.PendingConn {
	if p.Peek == balance.PeekRefused {
		d.balancer.Quarantine(p)
		return append(away, p)
	}
	if !d.balancer.PlaceOnly(p) { // it may have no link yet to this listener process
		d.untried(p)
		return append(away, p)
	}
	p.Via = p.OfferedTo.Worker.Link
	acts.offers = append(acts.offers, p)
	return away
}

// quarantine answers and closes connections that are turned away for their first bytes.
func (a *acceptor) quarantine(away []*balance.PendingConn) {
	for _, p := range away {
		traceUnserved(p, errTurnedAway)
		if a.poisonAnswer == "" {
			closeHere(p)
			continue
		}
		(&acceptedConn{h: p.Handle, fd: p.FD}).turnAway(a.poisonAnswer, &a.lingering)
	}
}
