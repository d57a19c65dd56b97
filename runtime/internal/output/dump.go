package output

import (
	"strings"
	"sync"
	"time"
)

const (
	// maxDump bounds the text of a dump in bytes. What follows comes line by line.
	maxDump = 64 << 10

	// dumpTime is how long a dump is gathered: longer than a program takes to print one as it dies.
	// A program that lives on has its lines after that time.
	dumpTime = time.Second
)

// Dumps gathers the lines of a dump to one Line: last words, and what the process prints on the
// same stream after them. The zero value gathers nothing. Its methods may be called by any
// goroutine.
type Dumps struct {
	Put func(Line) // gets the dumps; nil = none are gathered. Set before the first use

	mu    sync.Mutex
	dump  *Line // nil = no dump is being gathered
	text  strings.Builder
	timer *time.Timer
}

// Take takes l if it is part of a dump, which begins with a line for which begins is true.
func (d *Dumps) Take(l Line, begins bool) bool {
	if d.Put == nil {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if begins && d.dump == nil && l.Piece == 0 {
		d.dump = &l
		d.dump.Dump = true
		d.text.WriteString(l.Text)
		d.timer = time.AfterFunc(dumpTime, d.Flush)
		return true
	}
	if d.dump == nil || l.Stream != d.dump.Stream {
		return false
	}
	if d.text.Len()+len(l.Text)+1 > maxDump {
		d.flushLocked()
		return false
	}
	d.text.WriteString("\n" + l.Text)
	return true
}

// Flush passes on what is gathered.
func (d *Dumps) Flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.flushLocked()
}

// flushLocked holds the lock while it calls Put, so that the stream's next line comes after the
// dump.
func (d *Dumps) flushLocked() {
	if d.dump == nil {
		return
	}
	d.timer.Stop()
	l := *d.dump
	l.Text = strings.TrimRight(d.text.String(), "\n")
	d.dump = nil
	d.text.Reset()
	d.Put(l)
}
