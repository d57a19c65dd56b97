package coppice

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/coppice-go/coppice/actors"
	"github.com/coppice-go/coppice/fdipc"
)

// hub is the master's book of who lives. It numbers the children, gives them
// their channels and names, and introduces the workers to the listener process.
type hub struct {
	rt *Runtime

	mu       sync.Mutex
	last     int    // the newest ID
	links    uint64 // the newest number of one
	peers    map[int]*peer
	listener *peer // the listener process, from its first frame to its end
}

func newHub(rt *Runtime) *hub { return &hub{rt: rt, peers: map[int]*peer{}} }

// number gives a child its ID.
func (h *hub) number(p *peer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.last++
	p.welcome.ID = h.last
}

// book gives a child that has its body and its channel its place in the book.
func (h *hub) book(p *peer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.peers[p.welcome.ID] = p
}

// enter makes a child known to the actors, and to the sockets unless it is a spare.
// What it sent before would be refused, and what they send it must not come before
// its welcome. forget undoes it, and book.
func (h *hub) enter(p *peer) error {
	h.rt.wires.add(p.conn)
	if p.welcome.Role == roleWorker && p.welcome.Slot >= 0 {
		h.rt.sockets.AddWorker(p.sibling().Worker, p.conn)
	}
	return h.rt.system.Attach(p.address(), 0, p.conn)
}

// all returns the children that are in the book.
func (h *hub) all() []*peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	peers := make([]*peer, 0, len(h.peers))
	for _, p := range h.peers {
		peers = append(peers, p)
	}
	return peers
}

// welcomed gives a worker that has met its master and knows its place a link to the
// listener process. Each pair gets one link, and none before both can use it: who comes
// second makes it.
func (h *hub) welcomed(ctx context.Context, p *peer) error {
	h.mu.Lock()
	p.welcomed = true
	listener := h.listener
	h.mu.Unlock()
	if listener == nil {
		return nil // it gets its link when there is one
	}
	return h.introduce(ctx, listener, p)
}

// rename gives a child that does its work its name, which leaves who had it.
func (h *hub) rename(p *peer) error {
	pid := actors.ProcessPID(p.address())
	errs := []error{h.rt.system.Reregister(context.Background(), p.name(), pid)}
	if p.welcome.Role == roleListener { // who looks for a listener finds who accepts for it
		for _, name := range h.rt.root.listeners() {
			errs = append(errs, h.rt.system.Reregister(context.Background(), listenerName+"/"+name, pid))
		}
	}
	return errors.Join(errs...)
}

// appoint makes p, which is ready, the one that accepts: it gets a link to every
// worker, and every socket. Who did so before goes on until it is told to be quiet.
func (h *hub) appoint(ctx context.Context, p *peer) {
	defer close(p.accepts)
	h.mu.Lock()
	if h.peers[p.welcome.ID] != p || h.rt.closing.Load() {
		h.mu.Unlock()
		return // it has ended: nobody would take it out again; or nothing is accepted any more
	}
	h.listener = p
	var workers []*peer
	for _, w := range h.peers {
		if w.welcomed && !w.askedStop.Load() { // who drains takes no more
			workers = append(workers, w)
		}
	}
	h.mu.Unlock()
	for _, w := range workers {
		if err := h.introduce(ctx, p, w); err != nil {
			h.rt.log.Error("a worker has no link to the listener process, which is replaced", "name", w.name(), "err", err)
			p.killFor(KilledUnlinked) // it would pass that worker over, and nobody would know
			break
		}
	}
	h.rt.sockets.Attach(p.conn)
	h.mu.Lock()
	gone := h.listener == nil
	h.mu.Unlock()
	if gone { // p is, and perhaps it was before the sockets were attached
		h.rt.sockets.Detach()
	}
}

var errNoPair = errors.New("one of the two has ended")

// introduce gives the listener process and a worker a channel of their own, over
// which connections go without passing the master. It waits for neither: who does not
// read what the master says is replaced, and the other gets its link to who comes next.
func (h *hub) introduce(ctx context.Context, listener, worker *peer) error {
	l, lok := listener.body.(*goroutineBody)
	w, wok := worker.body.(*goroutineBody)
	to, from := worker.sibling(), listener.sibling()
	h.mu.Lock()
	h.links++
	to.Link, from.Link = h.links, h.links
	worker.linkage.made(h.links)
	h.mu.Unlock()
	if lok && wok {
		if !l.child.await(ctx) || !w.child.await(ctx) {
			return nil // one of them is ending
		}
		a, b := fdipc.Pipe(l.child.linkConfig(to), w.child.linkConfig(from))
		l.child.linked(to, a)
		w.child.linked(from, b)
		return nil
	}
	var a, b *os.File
	err := h.rt.whileShort(ctx, listener.name(), func() (err error) {
		if listener.finished() || worker.finished() {
			return errNoPair
		}
		a, b, err = fdipc.Socketpair()
		return short(err)
	})
	if errors.Is(err, errNoPair) {
		return nil // nobody is there to be linked
	}
	if err != nil {
		return fmt.Errorf("coppice: link %s to %s: %w", listener.name(), worker.name(), err)
	}
	if err := errors.Join(listener.sendLink(to, a), worker.sendLink(from, b)); err != nil {
		return fmt.Errorf("coppice: link %s to %s: %w", listener.name(), worker.name(), err)
	}
	return nil
}

// forget strikes out a child that has ended: its monitors fire, its asks fail,
// what it had not claimed goes to others.
func (h *hub) forget(p *peer) {
	h.mu.Lock()
	delete(h.peers, p.welcome.ID)
	wasListener := h.listener == p
	if wasListener {
		h.listener = nil
	}
	listener := h.listener
	h.mu.Unlock()

	h.rt.system.Detach(p.address(), p.reason)
	switch {
	case wasListener:
		h.rt.sockets.Detach()
	case p.welcome.Role == roleWorker:
		h.rt.sockets.RemoveWorker(uint64(p.welcome.ID), p.retired.Load())
		if listener != nil { // it is the master's word that the worker is reaped
			_ = listener.tell(control(frameGone, p.sibling())) // an error is its own end
		}
	}
}

// quietTimeout bounds how long a shutdown waits for workers to claim what was
// accepted for them.
const quietTimeout = 2 * time.Second

// quiet has a listener process accept what waits in the backlogs and then no more, and
// waits until all of it is claimed.
func (h *hub) quiet(ctx context.Context, l *peer) {
	if l.conn.TrySend(control(frameQuiet, struct{}{})) != nil {
		return
	}
	timer := time.NewTimer(quietTimeout)
	defer timer.Stop()
	select {
	case <-l.quiet:
	case <-l.done:
	case <-ctx.Done():
	case <-timer.C:
		h.rt.log.Warn("the listener process ends with connections that no worker has claimed", "waited", quietTimeout)
	}
}

// quietAll is quiet of every listener process that accepts: while one is replaced there
// are two.
func (h *hub) quietAll(ctx context.Context) {
	now := h.accepting()
	var all sync.WaitGroup
	for _, p := range h.all() {
		if p == now || p.welcome.Role == roleListener && p.retired.Load() {
			all.Go(func() { h.quiet(ctx, p) })
		}
	}
	all.Wait()
}

// accepting returns the listener process, or nil.
func (h *hub) accepting() *peer {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.listener
}
