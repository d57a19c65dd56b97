package output

import (
	"slices"
	"strings"
	"sync"
)

const (
	lastLines = 100      // lines kept of a process
	lastBytes = 64 << 10 // bytes of their texts
	lastText  = 8 << 10  // bytes of one of them
)

// A Tail keeps the newest lines of one process, of both streams: up to 100, and up to 64 KiB of
// text. The zero value is empty. Its methods may be called by any goroutine.
type Tail struct {
	mu      sync.Mutex
	all     ring
	besides *ring  // without the newest last words and the lines after them on standard error
	lost    uint64 // lines that the writer has not taken
}

// Add keeps l as the newest line, up to 8 KiB of it. begins says that l begins last words, which
// may be long.
func (t *Tail) Add(l Line, begins bool) {
	if len(l.Text) > lastText {
		l.Text = strings.Clone(l.Text[:lastText])
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case begins:
		before := t.all
		before.lines = slices.Clone(before.lines)
		t.besides = &before
	case t.besides != nil && l.Stream == Stdout:
		t.besides.add(l)
	}
	t.all.add(l)
}

// Lose counts a line that the writer has not taken.
func (t *Tail) Lose() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lost++
}

// Last returns a copy of the lines, and how many came before them.
func (t *Tail) Last() ([]Line, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.all.last()
}

// BesidesWords is Last without the newest last words and the lines after them on standard error.
func (t *Tail) BesidesWords() ([]Line, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.besides == nil {
		return t.all.last()
	}
	return t.besides.last()
}

// Lost returns the count of Lose.
func (t *Tail) Lost() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.lost
}

// ring keeps the newest of many lines.
type ring struct {
	lines []Line // oldest first
	bytes int
	total uint64 // number of all lines so far
}

func (r *ring) add(l Line) {
	r.total++
	r.lines, r.bytes = append(r.lines, l), r.bytes+len(l.Text)
	drop := 0
	for len(r.lines)-drop > lastLines || r.bytes > lastBytes {
		r.bytes -= len(r.lines[drop].Text)
		drop++
	}
	r.lines = r.lines[drop:]
}

func (r *ring) last() (lines []Line, before uint64) {
	return slices.Clone(r.lines), r.total - uint64(len(r.lines))
}
