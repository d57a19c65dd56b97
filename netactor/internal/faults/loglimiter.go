package faults

import (
	"log/slog"
	"sync"
	"time"
)

// LogLimiter limits the log lines that a peer can cause to maxLines per message in linesPeriod. The
// next line that passes has the number of lines that were held back.
type LogLimiter struct {
	Logger *slog.Logger

	mu    sync.Mutex
	lines map[string]*limitedLine // by message: messages are constants, so there are few
}

type limitedLine struct {
	since    time.Time
	count    int
	heldBack int
}

const (
	maxLines    = 10
	linesPeriod = 10 * time.Second
)

// Warn logs msg as a warning, unless the limit for it is reached.
func (l *LogLimiter) Warn(msg string, args ...any) {
	if held, ok := l.pass(msg, time.Now()); ok {
		if held > 0 {
			args = append(args, "held_back", held)
		}
		l.Logger.Warn(msg, args...)
	}
}

// pass reports whether a line of a kind may be logged, and returns how many lines before it were
// held back.
func (l *LogLimiter) pass(kind string, now time.Time) (held int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.lines[kind]
	if k == nil {
		if l.lines == nil {
			l.lines = make(map[string]*limitedLine)
		}
		k = &limitedLine{since: now}
		l.lines[kind] = k
	}
	if now.Sub(k.since) >= linesPeriod {
		k.since, k.count = now, 0
	}
	if k.count++; k.count > maxLines {
		k.heldBack++
		return 0, false
	}
	held, k.heldBack = k.heldBack, 0
	return held, true
}
