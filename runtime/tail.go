package coppice

import "sync"

const (
	lastLines = 100      // lines kept of each process
	lastBytes = 64 << 10 // bytes kept of each process, whichever is reached first
)

// tail keeps the newest lines of one process, both streams. Safe for concurrent
// use.
type tail struct {
	mu    sync.Mutex
	lines []OutputLine // oldest first
	bytes int
	total uint64 // lines ever
	lost  uint64 // of those: not taken by Config.Output
}

// add keeps l as the newest.
func (t *tail) add(l OutputLine) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total++
	t.lines, t.bytes = append(t.lines, l), t.bytes+len(l.Text)
	drop := 0
	for len(t.lines)-drop > lastLines || t.bytes > lastBytes {
		t.bytes -= len(t.lines[drop].Text)
		drop++
	}
	t.lines = t.lines[drop:]
}

func (t *tail) lose() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lost++
}

// last returns a copy of the lines, how many came before them, and how many of
// all were lost to Config.Output.
func (t *tail) last() (lines []OutputLine, before, lost uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]OutputLine(nil), t.lines...), t.total - uint64(len(t.lines)), t.lost
}
