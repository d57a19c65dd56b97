package coppice

import (
	"context"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// linkHealth is the link of one worker to the listener process, as the master knows it: what
// to do when it breaks while both live. It has no clock; time comes in with the calls.
type linkHealth struct {
	number      uint64 // of the link that was made last; 0: none
	broken      bool   // that one has ended, and another is to be made
	short       bool   // for the listener process lacked what it takes
	workerShort bool   // for the worker did, by its own word
	breaks      int    // since it broke first, but for shortages
	shortages   int    // shortages of the worker's, since it broke first
	last        time.Time
	pause       time.Duration // before the latest one was made anew
}

const (
	firstRelink      = 50 * time.Millisecond // by then it is known which of the two has died
	maxRelink        = time.Second
	linkStable       = time.Minute // a link that has lasted so long breaks for the first time
	maxLinkBreaks    = 3           // in a row, of one worker's links; it is replaced at the next
	maxLinkShortages = 10          // likewise, of those for which the worker had no descriptors
)

// made takes note of a link that is being made.
func (l *linkHealth) made(number uint64) {
	l.number, l.broken, l.short, l.workerShort = number, false, false, false
}

// broke takes an end's word that a link has ended: the worker's, if own. When it is news, it
// returns after what pause the other end's death, if it was that, is known, and mend is to be asked.
func (l *linkHealth) broke(number uint64, short, own bool, now time.Time) (pause time.Duration, news bool) {
	if number != l.number || number == 0 {
		return 0, false // it is replaced
	}
	l.short = l.short || short && !own
	l.workerShort = l.workerShort || short && own
	if l.broken {
		return 0, false // the other end has said so
	}
	if now.Sub(l.last) > linkStable {
		l.breaks, l.shortages, l.pause = 0, 0, 0
	}
	l.broken, l.last = true, now
	l.pause = min(max(2*l.pause, firstRelink), maxRelink)
	return l.pause, true
}

// repair reports whether another link is to be made; else the worker is to be replaced. What
// the listener process lacks for a link is no reason for that, and what the worker lacks for
// a time is none: one that leaks descriptors gets well by its end alone.
func (l *linkHealth) repair() bool {
	switch {
	case l.short:
	case l.workerShort:
		l.shortages++
	default:
		l.breaks++
	}
	return l.breaks <= maxLinkBreaks && l.shortages <= maxLinkShortages
}

// linkLost takes a child's word that its link to a sibling has ended. If both live, after a
// while, they get another.
func (h *children) linkLost(p *poolWorker, u childproto.LinkLostFrame) {
	h.mu.Lock()
	worker := p
	if p == h.listener {
		worker = h.byID[int(min(u.ID, 1<<31))]
	}
	if worker == nil || !worker.driver.kind.ofConfig {
		h.mu.Unlock()
		return
	}
	pause, news := worker.link.broke(u.Link, u.Short, worker == p, time.Now())
	h.mu.Unlock()
	if news {
		time.AfterFunc(pause, func() { h.repairLink(worker, u) }) // does nothing once one of the two has ended
	}
}

// repairLink makes the link of a worker anew, or ends a worker whose links do not hold.
func (h *children) repairLink(worker *poolWorker, u childproto.LinkLostFrame) {
	h.mu.Lock()
	l := &worker.link
	listener := h.listener
	if listener == nil || l.number != u.Link || h.byID[worker.hello.ID] != worker ||
		worker.askedStop.Load() || listener.finished() || worker.finished() {
		h.mu.Unlock()
		return
	}
	mend, breaks := l.repair(), l.breaks+l.shortages
	first := !l.short && !l.workerShort || l.pause == firstRelink
	h.mu.Unlock()
	if !mend {
		h.log.Error("the links of a worker to the listener process break again and again: it is replaced",
			"name", worker.name(), "id", worker.hello.ID, "links", breaks, "err", u.Why)
		worker.killFor(KilledBadLinks)
		return
	}
	if first {
		h.log.Warn("the link between the listener process and a worker is broken: another is made",
			"name", worker.name(), "id", worker.hello.ID, "breaks", breaks, "err", u.Why)
	}
	if err := h.linkPair(context.Background(), listener, worker); err != nil { // ends with one of the two
		h.log.Error("a worker has no link to the listener process, and is replaced", "name", worker.name(), "err", err)
		worker.killFor(KilledBadLinks)
		return
	}
	worker.relinked.Add(1)
}
