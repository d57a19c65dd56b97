package coppice

import (
	"slices"
	"sync"
)

const (
	lastLines = 100      // lines kept of each process
	lastBytes = 64 << 10 // bytes kept of each process, whichever is reached first
)

// tail keeps the newest lines of one process, both streams. Safe for concurrent
// use.
type tail struct {
	mu   sync.Mutex
	all  ring
	calm *ring  // without the newest last words, and what followed on standard error
	lost uint64 // lines that Config.Output has not taken
}

// add keeps l as the newest. What follows last words may be long: begins says that
// l begins some.
func (t *tail) add(l OutputLine, begins bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case begins:
		calm := t.all
		calm.lines = slices.Clone(calm.lines)
		t.calm = &calm
	case t.calm != nil && l.Stream == streamOut:
		t.calm.add(l)
	}
	t.all.add(l)
}

func (t *tail) lose() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lost++
}

// last returns a copy of the lines, and how many came before them.
func (t *tail) last() ([]OutputLine, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all.last()
}

// besides is last without the newest last words and what followed them on standard
// error.
func (t *tail) besides() ([]OutputLine, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calm == nil {
		return t.all.last()
	}
	return t.calm.last()
}

// losses is how many lines Config.Output has not taken.
func (t *tail) losses() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost
}

// ring is the newest lines of some.
type ring struct {
	lines []OutputLine // oldest first
	bytes int
	total uint64 // lines ever
}

func (r *ring) add(l OutputLine) {
	r.total++
	r.lines, r.bytes = append(r.lines, l), r.bytes+len(l.Text)
	drop := 0
	for len(r.lines)-drop > lastLines || r.bytes > lastBytes {
		r.bytes -= len(r.lines[drop].Text)
		drop++
	}
	r.lines = r.lines[drop:]
}

func (r *ring) last() (lines []OutputLine, before uint64) {
	return slices.Clone(r.lines), r.total - uint64(len(r.lines))
}
