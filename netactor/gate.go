package netactor

import (
	"log/slog"
	"sync"
	"time"
)

// gate lets through the log lines that a peer can cause, but not more of one kind than
// gateLines in gatePeriod. How many were held back stands in the next that passes.
type gate struct {
	logger *slog.Logger

	mu    sync.Mutex
	kinds map[string]*gateKind // by message: those are ours, so there are few
}

type gateKind struct {
	since time.Time
	lines int
	held  int
}

const (
	gateLines  = 10
	gatePeriod = 10 * time.Second
)

func (g *gate) warn(msg string, args ...any) {
	if held, ok := g.pass(msg, time.Now()); ok {
		if held > 0 {
			args = append(args, "held_back", held)
		}
		g.logger.Warn(msg, args...)
	}
}

// pass reports whether a line of a kind may be logged, and how many were not before.
func (g *gate) pass(kind string, now time.Time) (held int, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	k := g.kinds[kind]
	if k == nil {
		if g.kinds == nil {
			g.kinds = make(map[string]*gateKind)
		}
		k = &gateKind{since: now}
		g.kinds[kind] = k
	}
	if now.Sub(k.since) >= gatePeriod {
		k.since, k.lines = now, 0
	}
	if k.lines++; k.lines > gateLines {
		k.held++
		return 0, false
	}
	held, k.held = k.held, 0
	return held, true
}
