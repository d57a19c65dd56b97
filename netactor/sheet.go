package netactor

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/coppice-go/coppice/fdipc"
)

// sheet is a page of counters that a worker shares with the listener process, one
// for each listener that it has joined. It outlives the worker: what a worker had
// closed when it was killed is known to the last connection, and without a frame for each.
//
// The worker writes, the listener process reads and trusts nothing in it. Layout,
// in 64-bit words of the machine's own byte order:
//
//	0  magic
//	1  connections closed since it joined
//	2  of what it accepted, how long the hand-over took: a Histogram
//
// A nil sheet counts nothing.
type sheet struct{ words []atomic.Uint64 }

const (
	sheetMagic = 0x3145484332544543
	sheetEnds  = 1
	sheetTimes = 2
	sheetWords = sheetTimes + len(bounds) + 1
	sheetBytes = 4096
)

func sheetAt(b []byte) *sheet {
	return &sheet{unsafe.Slice((*atomic.Uint64)(unsafe.Pointer(unsafe.SliceData(b))), sheetWords)}
}

// ended is how many connections the worker has closed.
func (s *sheet) ended() (n uint64, ok bool) {
	if s == nil {
		return 0, false
	}
	n = s.words[sheetEnds].Load()
	runtime.KeepAlive(s)
	return n, true
}

// end counts a connection that was closed.
func (s *sheet) end() {
	if s != nil {
		s.words[sheetEnds].Add(1)
		runtime.KeepAlive(s)
	}
}

// claimed counts a hand-over.
func (s *sheet) claimed(bucket int) {
	if s != nil {
		s.words[sheetTimes+bucket].Add(1)
		runtime.KeepAlive(s)
	}
}

// latency returns how long the hand-overs took.
func (s *sheet) latency() (h Histogram) {
	if s != nil {
		for i := range h {
			h[i] = s.words[sheetTimes+i].Load()
		}
		runtime.KeepAlive(s)
	}
	return h
}

// sheetFrame takes a worker's sheet for one of its listeners. The handles are consumed.
func (d *Dispatcher) sheetFrame(id, number uint64, f *fdipc.Frame) {
	if len(f.Handles) != 1 {
		return
	}
	s, err := openSheet(f.Handles[0])
	d.mu.Lock()
	a := d.books.workers[id]
	if a == nil || err != nil || a.seats[number] == nil || a.seats[number].sheet != nil {
		d.mu.Unlock()
		return // without it, the worker's ends are known by its frames alone
	}
	seat := a.seats[number]
	seat.sheet = s
	link, enough := a.link, seat.l != nil && !seat.l.needsEnds
	d.mu.Unlock()
	if link != nil && enough {
		_ = link.TrySend(&fdipc.Frame{Kind: KindSheet, Target: number})
	}
}

// quieten tells the workers that were there before the listener to spare their reports.
func (d *Dispatcher) quieten(l *ledger) {
	if l.needsEnds {
		return
	}
	var links []*fdipc.Conn
	d.mu.Lock()
	for _, s := range l.seats {
		if s.sheet != nil && s.a.link != nil {
			links = append(links, s.a.link)
		}
	}
	d.mu.Unlock()
	for _, c := range links {
		_ = c.TrySend(&fdipc.Frame{Kind: KindSheet, Target: l.number})
	}
}

// refresh reads what the worker of s has closed, where it does not report it.
func (b *books) refresh(s *seat) {
	c := &s.counts
	n, ok := s.ended()
	if !ok || s.l.needsEnds || n <= c.Finished || n-c.Finished > uint64(s.load()) {
		return
	}
	s.l.load -= int(n - c.Finished)
	s.a.since -= int(n - c.Finished)
	c.Finished = n
	b.update(s)
}
