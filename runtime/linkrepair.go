package coppice

import (
	"context"
	"time"

	"github.com/coppice-go/coppice/runtime/internal/childproto"
)

// linkHealth decides what happens when the link of a worker to the listener process breaks while
// both live. It has no clock: the calls pass the time.
type linkHealth struct {
	number      uint64    // of the newest link; 0 = none
	broken      bool      // the newest link has ended, and another will be made
	short       bool      // because the listener process lacked something
	workerShort bool      // because the worker lacked something, as it reported
	breaks      int       // since the first one in a row, without shortages
	shortages   int       // of the worker, since the first break in a row
	last        time.Time // when a link broke last
	pause       time.Duration
}

const (
	firstRelink      = 50 * time.Millisecond // by then the end of a process that has died is known
	maxRelink        = time.Second
	linkStable       = time.Minute // the first break after so long starts a new row
	maxLinkBreaks    = 3           // in a row, of one worker; the next break replaces it
	maxLinkShortages = 10          // in a row, breaks for want of descriptors in the worker
)

// made notes that a link is being made.
func (l *linkHealth) made(number uint64) {
	l.number, l.broken, l.short, l.workerShort = number, false, false, false
}

// broke notes that a link has ended: own is set when the worker reports it, otherwise the listener
// process does. The first of the two reports gets a pause, after which repair must be called.
func (l *linkHealth) broke(number uint64, short, own bool, now time.Time) (pause time.Duration, news bool) {
	if number != l.number || number == 0 {
		return 0, false // another has replaced it
	}
	l.short = l.short || short && !own
	l.workerShort = l.workerShort || short && own
	if l.broken {
		return 0, false // the other end has reported it
	}
	if now.Sub(l.last) > linkStable {
		l.breaks, l.shortages, l.pause = 0, 0, 0
	}
	l.broken, l.last = true, now
	l.pause = min(max(2*l.pause, firstRelink), maxRelink)
	return l.pause, true
}

// repair reports whether another link is to be made; otherwise the worker is to be replaced. A
// shortage of the listener process is never a reason to replace the worker. A shortage of the
// worker is, if it lasts: a worker that leaks descriptors must end.
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

// linkLost is called when a child reports that its link to a sibling has ended. If both live after
// a pause, they get another link.
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

// repairLink makes another link for a worker, or kills a worker whose links do not last.
func (h *children) repairLink(worker *poolWorker, u childproto.LinkLostFrame) {
	h.mu.Lock()
	l := &worker.link
	listener := h.listener
	if listener == nil || l.number != u.Link || h.byID[worker.hello.ID] != worker ||
		worker.isEnding() || worker.exitNotice.Load() != nil || childproto.IsClosed(worker.backend.exited()) || listener.finished() || worker.finished() {
		h.mu.Unlock()
		return
	}
	again, breaks := l.repair(), l.breaks+l.shortages
	first := !l.short && !l.workerShort || l.pause == firstRelink
	h.mu.Unlock()
	if !again {
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
