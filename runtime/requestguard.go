package coppice

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
	"github.com/coppice-go/coppice/runtime/internal/childproto"
	"github.com/coppice-go/coppice/runtime/internal/inflight"
	"github.com/coppice-go/coppice/runtime/internal/quarantine"
)

// maxGuardedKeys bounds the keys of a frame to a worker. Suspects beyond it are cleared: an
// innocent key that no worker knows of could not be answered.
const maxGuardedKeys = 1024

// requestGuard is the quarantine of the requests of a pool, and of connections by their first
// bytes. It tells the workers which keys are suspected or refused; they say which were answered,
// and ask by what they refuse for a probe. Connections are refused by the listener process, and
// probed in a worker of their own, one at a time. It is an actor, for operators. A nil
// *requestGuard guards nothing.
type requestGuard struct {
	log   *slog.Logger
	pool  string
	began time.Time

	// Set before the first worker; nil = there is none. They are called without mu.
	news         func(why string) // an event
	lend, recall func()           // a worker for the trial, which comes by tryIn and goes by triedIn
	listener     func() frameSender

	mu      sync.Mutex
	table   *quarantine.State
	workers map[guardedWorker]bool
	probes  map[string]probe // by key
	last    uint64           // the number of the newest probe
	trial   string           // the key that is tried in a worker of its own; "" = none
	timeout *time.Timer      // of the trial, once it has its worker
	later   []func()         // to be called without mu
}

// unlock unlocks mu, and calls what is to be called then.
func (g *requestGuard) unlock() {
	later := g.later
	g.later = nil
	g.mu.Unlock()
	for _, f := range later {
		f()
	}
}

// aloneTimeout is how long a trial waits for a connection with its key, and how long that may take.
const aloneTimeout = harmlessAfter

// frameSender is a child that the guard tells something.
type frameSender interface{ sendOrReplace(f *fdipc.Frame) error }

// harmlessAfter is how long a request lasts that kills nothing, but by a hang: it is no suspect,
// and as a probe it counts as answered.
const harmlessAfter = time.Minute

// guardedWorker is what a requestGuard needs of a worker.
type guardedWorker interface {
	frameSender
	number() uint64
	name() string
	servesFor(key string) time.Duration // how long it has served its oldest request of a key
}

// A probe is a request that a worker may let through.
type probe struct {
	at     guardedWorker
	number uint64
}

func newRequestGuard(p Poison, pool string, log *slog.Logger) *requestGuard {
	if p.Deaths == 0 {
		return nil
	}
	return &requestGuard{
		log: log, pool: pool, began: time.Now(), workers: map[guardedWorker]bool{}, probes: map[string]probe{},
		table: quarantine.New(quarantine.Config{Deaths: p.Deaths, Window: p.Window, Interval: p.Probe, Expiry: p.Expiry, Keys: p.Keys}),
	}
}

func (g *requestGuard) now() quarantine.Time { return time.Since(g.began) }

// join adds a worker, which has its hello.
func (g *requestGuard) join(w guardedWorker) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.workers[w] = true
	if keys := g.guardedLocked(); len(keys) > 0 {
		g.sendLocked(w, keys)
	}
}

// left removes a worker that has ended. died has the requests that it was serving, if it died of
// itself.
func (g *requestGuard) left(w guardedWorker, reason string, died []inflight.Served) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.unlock()
	delete(g.workers, w)
	keys := make([]string, len(died))
	for i, r := range died {
		keys[i] = r.Key
	}
	for key, p := range g.probes {
		if p.at == w {
			if delete(g.probes, key); !slices.Contains(keys, key) {
				g.table.Dropped(key)
			}
		}
	}
	if len(keys) > 0 {
		g.foundLocked(g.table.Died(g.now(), reason, keys...))
		g.tellLocked()
	}
}

// tryIn has the connection that is tried go to w, which is ready and gets no other.
func (g *requestGuard) tryIn(w guardedWorker) {
	g.mu.Lock()
	defer g.unlock()
	if g.trial == "" || !g.workers[w] {
		g.later = append(g.later, g.recall)
		return
	}
	g.last++
	g.probes[g.trial] = probe{w, g.last}
	g.timeout = time.AfterFunc(aloneTimeout, func() { g.endTrial(w) })
	g.tellListenerLocked()
}

// endTrial ends a trial whose time is over.
func (g *requestGuard) endTrial(w guardedWorker) {
	g.mu.Lock()
	defer g.unlock()
	p, waits := g.probes[g.trial]
	if !waits || p.at != w {
		return
	}
	switch served := w.servesFor(g.trial); {
	case served >= harmlessAfter:
		g.answeredLocked(w, g.trial, g.table.Guarded(g.now())[g.trial])
	case served > 0:
		g.timeout.Reset(harmlessAfter - served)
	default: // nobody asks for it
		delete(g.probes, g.trial)
		g.table.Dropped(g.trial)
		g.later = append(g.later, g.recall)
		g.tellListenerLocked()
	}
}

// triedIn ends the trial: its worker has ended. err is why that was not ready.
func (g *requestGuard) triedIn(err error) {
	g.mu.Lock()
	defer g.unlock()
	if err != nil {
		g.log.Warn("a connection could not be tried in a worker of its own", "pool", g.pool, "key", g.trial, "err", err)
	}
	if g.timeout != nil {
		g.timeout.Stop()
	}
	delete(g.probes, g.trial)
	g.table.Dropped(g.trial) // unless there is a result
	g.trial = ""
}

// end ends the guard, with its pool.
func (g *requestGuard) end() {
	g.mu.Lock()
	defer g.unlock()
	if g.timeout != nil {
		g.timeout.Stop()
	}
	g.table = quarantine.New(quarantine.Config{})
	g.tellListenerLocked()
}

// told takes what a worker says of a key, or the listener process, which is nil.
func (g *requestGuard) told(w guardedWorker, k childproto.GuardedKey) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.unlock()
	key := string(k.Key)
	passes, known := g.table.Guarded(g.now())[key]
	switch {
	case w != nil && !g.workers[w]:
	case k.Answered && known:
		g.answeredLocked(w, key, passes)
	case k.Refused > 0 && known && !passes:
		if p, ok := g.probes[key]; ok && p.at.servesFor(key) >= harmlessAfter {
			g.answeredLocked(p.at, key, passes)
			return
		}
		n, verdict := int(min(k.Refused, 1<<30)), quarantine.Pass
		if w != nil || g.trial == "" && g.lend != nil {
			verdict = g.table.Admit(g.now(), key)
		}
		if verdict == quarantine.Refuse {
			n-- // which Admit has counted
		}
		g.table.Refused(g.now(), key, n)
		switch {
		case verdict != quarantine.Alone:
		case w == nil:
			g.trial = key
			g.later = append(g.later, g.lend)
		default:
			g.last++
			g.probes[key] = probe{w, g.last}
			g.sendLocked(w, g.guardedLocked())
		}
	case k.Refused > 0 && w == nil:
		g.tellListenerLocked()
	case k.Refused > 0: // it has expired
		g.sendLocked(w, g.guardedLocked())
	}
}

// answeredLocked clears a key of which a worker has answered a request.
func (g *requestGuard) answeredLocked(w guardedWorker, key string, passes bool) {
	delete(g.probes, key)
	found := g.table.Answered(g.now(), key)
	g.foundLocked(found)
	if key == g.trial && g.recall != nil {
		g.later = append(g.later, g.recall)
	}
	if !passes {
		g.newsLocked(fmt.Sprintf("%q is no longer refused: %s has answered", key, w.name()))
		g.log.Info("requests of a key are no longer refused: one was answered", "pool", g.pool, "key", key, "worker", w.name())
	}
	if !passes || found != nil {
		g.tellLocked()
	}
}

// foundLocked logs that keys are quarantined.
func (g *requestGuard) foundLocked(keys []string) {
	for _, key := range keys {
		e, _ := g.table.Entry(g.now(), key)
		g.newsLocked(fmt.Sprintf("%q is refused: %d workers died with it: %s", key, e.Deaths, e.Reason))
		g.log.Warn("requests of a key are refused: they killed workers", "pool", g.pool, "key", key, "deaths", e.Deaths, "last", e.Reason,
			"probe", (e.Next - g.now()).Round(time.Second).String())
	}
}

// newsLocked has an event published.
func (g *requestGuard) newsLocked(why string) {
	if g.news != nil {
		g.later = append(g.later, func() { g.news(why) })
	}
}

// tellListener tells a new listener process what it refuses.
func (g *requestGuard) tellListener() {
	g.mu.Lock()
	defer g.unlock()
	g.tellListenerLocked()
}

func (g *requestGuard) tellListenerLocked() {
	if g.listener == nil {
		return
	}
	f := childproto.GuardFrame{Pool: g.pool}
	for _, k := range g.guardedLocked() {
		if !k.Refuse {
			continue
		}
		if p, ok := g.probes[string(k.Key)]; ok {
			k.Probe, k.Worker = p.number, p.at.number()
		}
		f.Keys = append(f.Keys, k)
	}
	if l := g.listener(); l != nil {
		_ = l.sendOrReplace(childproto.NewFrame(childproto.FrameGuard, f)) // an error means that it ends
	}
}

// guardedLocked returns what the workers are to know, what they refuse first.
func (g *requestGuard) guardedLocked() (keys []childproto.GuardedKey) {
	passes := g.table.Guarded(g.now())
	names := slices.SortedFunc(maps.Keys(passes), func(a, b string) int {
		if passes[a] != passes[b] {
			return map[bool]int{false: -1, true: 1}[passes[a]]
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		if i >= maxGuardedKeys {
			g.table.Release(g.now(), name)
			continue
		}
		keys = append(keys, childproto.GuardedKey{Key: []byte(name), Refuse: !passes[name]})
	}
	return keys
}

// tellLocked tells all workers.
func (g *requestGuard) tellLocked() {
	keys := g.guardedLocked()
	for w := range g.workers {
		g.sendLocked(w, keys)
	}
	g.tellListenerLocked()
}

func (g *requestGuard) sendLocked(w guardedWorker, keys []childproto.GuardedKey) {
	if len(g.probes) > 0 {
		keys = slices.Clone(keys)
		for i, k := range keys {
			if p := g.probes[string(k.Key)]; p.at == w {
				keys[i].Probe = p.number
			}
		}
	}
	_ = w.sendOrReplace(childproto.NewFrame(childproto.FrameGuard, childproto.GuardFrame{Keys: keys})) // on an error it ends
}

// Receive is for actor.Actor: operators ask it otherwise.
func (g *requestGuard) Receive(actor.Context) {}

// quarantinedKey is a key as the control endpoint shows it; that of a pool of jobs is alike.
type quarantinedKey struct {
	Key      string  `json:"key"`
	Released bool    `json:"released,omitempty"`
	Deaths   int     `json:"deaths"`
	Refused  int     `json:"refused"`
	Since    float64 `json:"since_seconds"`
	Probe    float64 `json:"probe_seconds"`
	Expiry   float64 `json:"expiry_seconds"`
	Reason   string  `json:"reason"`
}

// Inspect is for [actors.Inspector].
func (g *requestGuard) Inspect() any {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, keys := g.now(), []quarantinedKey{}
	for _, e := range g.table.List(now) {
		keys = append(keys, quarantinedKey{
			e.Key, e.Released, e.Deaths, e.Refused, (now - e.Since).Seconds(), max(0, e.Next-now).Seconds(), (e.Until - now).Seconds(), e.Reason,
		})
	}
	return map[string]any{"quarantine": keys}
}

// Summary is for [actors.Summarizer].
func (g *requestGuard) Summary() actors.Summary {
	g.mu.Lock()
	defer g.mu.Unlock()
	return actors.Summary{Kind: guardKind, Text: fmt.Sprintf("%d keys quarantined", g.table.Len(g.now()))}
}

// Operate is for [actors.Operator]: "release" ends the quarantine of a key, and "forget" removes
// its entry too.
func (g *requestGuard) Operate(do, key string) error {
	g.mu.Lock()
	defer g.unlock()
	found := false
	switch do {
	case "release":
		found = g.table.Release(g.now(), key)
	case "forget":
		found = g.table.Forget(g.now(), key)
	default:
		return fmt.Errorf("coppice: a quarantine does not %q: it can release or forget a key", do)
	}
	if !found {
		return fmt.Errorf("coppice: key %q is not quarantined", key)
	}
	g.newsLocked(fmt.Sprintf("%q: an operator asked to %s it", key, do))
	delete(g.probes, key)
	if key == g.trial && g.recall != nil {
		g.later = append(g.later, g.recall)
	}
	g.tellLocked()
	return nil
}

// guardKind is the kind of the actor of a pool's quarantine, and the last part of its name.
const guardKind = "quarantine"
