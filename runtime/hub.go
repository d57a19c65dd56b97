package coppice

import (
	"context"
	"errors"
	"fmt"
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
	last     int // the newest ID
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

// enter gives a child that has its body and its channel its place in the book,
// where others find it, and makes it known to the actors and the sockets. What it
// sent before would be refused. forget undoes it.
func (h *hub) enter(p *peer) error {
	h.mu.Lock()
	h.peers[p.welcome.ID] = p
	h.mu.Unlock()
	h.rt.wires.add(p.conn)
	if p.welcome.Role == roleWorker {
		h.rt.sockets.AddWorker(p.welcome.sibling().Worker, p.conn)
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

// welcomed gives a child that knows who it is its place among the others: a link
// between it and the listener process, or to every worker if it is that. Each
// pair gets one link, and none before both have their welcome, which is a
// child's first frame: who comes second makes it.
func (h *hub) welcomed(ctx context.Context, p *peer) error {
	if p.welcome.Role == roleListener {
		return h.appointListener(ctx, p)
	}
	h.mu.Lock()
	p.welcomed = true
	listener := h.listener
	h.mu.Unlock()
	if listener == nil {
		return nil // it gets its link when there is one
	}
	return h.introduce(ctx, listener, p)
}

// ready gives a child that does its work its name, which leaves who had it; and
// the listener process every socket that it is to accept on.
func (h *hub) ready(ctx context.Context, p *peer) error {
	if p.welcome.Role == roleListener {
		h.rt.sockets.Attach(p.conn)
		h.mu.Lock()
		gone := h.listener != p
		h.mu.Unlock()
		if gone { // meanwhile, and perhaps before the sockets were attached
			h.rt.sockets.Detach()
		}
	}
	return h.rt.system.Reregister(ctx, p.welcome.Name, actors.ProcessPID(p.address()))
}

// appointListener makes p the one that accepts: it gets a link to every worker,
// and when it is ready the sockets.
func (h *hub) appointListener(ctx context.Context, p *peer) error {
	h.mu.Lock()
	h.listener = p
	var workers []*peer
	for _, w := range h.peers {
		if w.welcomed {
			workers = append(workers, w)
		}
	}
	h.mu.Unlock()
	var errs []error
	for _, w := range workers {
		errs = append(errs, h.introduce(ctx, p, w))
	}
	return errors.Join(errs...)
}

// introduce gives the listener process and a worker a channel of their own, over
// which connections go without passing the master.
func (h *hub) introduce(ctx context.Context, listener, worker *peer) error {
	l, lok := listener.body.(*goroutineBody)
	w, wok := worker.body.(*goroutineBody)
	if lok && wok {
		if !l.child.await(ctx) || !w.child.await(ctx) {
			return nil // one of them is ending
		}
		to, from := worker.welcome.sibling(), listener.welcome.sibling()
		a, b := fdipc.Pipe(l.child.linkConfig(to), w.child.linkConfig(from))
		l.child.linked(to, a)
		w.child.linked(from, b)
		return nil
	}
	a, b, err := fdipc.Socketpair()
	if err != nil {
		return fmt.Errorf("coppice: link %s to %s: %w", listener.welcome.Name, worker.welcome.Name, err)
	}
	err = errors.Join(
		listener.sendLink(ctx, worker, a),
		worker.sendLink(ctx, listener, b),
	)
	if err != nil && !errors.Is(err, fdipc.ErrPeerLost) && !errors.Is(err, fdipc.ErrClosed) {
		return fmt.Errorf("coppice: link %s to %s: %w", listener.welcome.Name, worker.welcome.Name, err)
	}
	return nil // a peer that has died meanwhile needs no link
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
		h.rt.sockets.RemoveWorker(uint64(p.welcome.ID), false)
		if listener != nil { // it is the master's word that the worker is reaped
			err := listener.conn.TrySend(control(frameGone, p.welcome.sibling()))
			if errors.Is(err, fdipc.ErrFull) {
				h.rt.log.Error("the listener process does not read what the master says: it is replaced", "id", listener.welcome.ID)
				listener.killFor(KilledUnread)
			} // another error is its own end
		}
	}
}

// quietTimeout bounds how long a shutdown waits for workers to claim what was
// accepted for them.
const quietTimeout = 2 * time.Second

// quiet has the listener process accept what waits in the backlogs and then no
// more, and waits until all of it is claimed.
func (h *hub) quiet(ctx context.Context) {
	h.mu.Lock()
	l := h.listener
	h.mu.Unlock()
	if l == nil || l.conn.TrySend(control(frameQuiet, struct{}{})) != nil {
		return
	}
	timer := time.NewTimer(quietTimeout)
	defer timer.Stop()
	select {
	case <-l.quiet:
	case <-l.done:
	case <-ctx.Done():
	case <-timer.C:
		h.rt.log.Warn("shutting down with connections that no worker has claimed", "waited", quietTimeout)
	}
}
