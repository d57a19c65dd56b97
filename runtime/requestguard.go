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

// requestGuard is the quarantine of the requests of a pool. It tells the workers which keys are
// suspected or refused; they say which were answered, and ask by what they refuse for a probe. It
// is an actor, for operators. A nil *requestGuard guards nothing.
type requestGuard struct {
	log   *slog.Logger
	pool  string
	began time.Time

	mu      sync.Mutex
	table   *quarantine.State
	workers map[guardedWorker]bool
	probes  map[string]probe // by key
	last    uint64           // the number of the newest probe
}

// harmlessAfter is how long a request lasts that kills nothing, but by a hang: it is no suspect,
// and as a probe it counts as answered.
const harmlessAfter = time.Minute

// guardedWorker is what a requestGuard needs of a worker.
type guardedWorker interface {
	sendOrReplace(f *fdipc.Frame) error
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
	defer g.mu.Unlock()
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

// told takes what a worker says of a key.
func (g *requestGuard) told(w guardedWorker, k childproto.GuardedKey) {
	if g == nil {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	key := string(k.Key)
	passes, known := g.table.Guarded(g.now())[key]
	switch {
	case !g.workers[w]:
	case k.Answered && known:
		g.answeredLocked(w, key, passes)
	case k.Refused > 0 && known && !passes:
		if p, ok := g.probes[key]; ok && p.at.servesFor(key) >= harmlessAfter {
			g.answeredLocked(p.at, key, passes)
			return
		}
		n := int(min(k.Refused, 1<<30))
		verdict := g.table.Admit(g.now(), key)
		if verdict == quarantine.Refuse {
			n-- // which Admit has counted
		}
		g.table.Refused(g.now(), key, n)
		if verdict == quarantine.Alone {
			g.last++
			g.probes[key] = probe{w, g.last}
			g.sendLocked(w, g.guardedLocked())
		}
	case k.Refused > 0: // it has expired
		g.sendLocked(w, g.guardedLocked())
	}
}

// answeredLocked clears a key of which a worker has answered a request.
func (g *requestGuard) answeredLocked(w guardedWorker, key string, passes bool) {
	delete(g.probes, key)
	found := g.table.Answered(g.now(), key)
	g.foundLocked(found)
	if !passes {
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
		g.log.Warn("requests of a key are refused: they killed workers", "pool", g.pool, "key", key, "deaths", e.Deaths, "last", e.Reason,
			"probe", (e.Next - g.now()).Round(time.Second).String())
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
	defer g.mu.Unlock()
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
	delete(g.probes, key)
	g.tellLocked()
	return nil
}

// guardKind is the kind of the actor of a pool's quarantine, and the last part of its name.
const guardKind = "quarantine"
